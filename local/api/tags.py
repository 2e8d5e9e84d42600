"""AddTags, ListTags and DeleteTags of the resources that this server runs (WIRE-13)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from byoa.local.errors import AwsError, ValidationException
from byoa.local.settings import Caller

if TYPE_CHECKING:
    from byoa.local.storage.state import State

TAGS_LIMIT = 50  # of one resource
KINDS = ("training-job", "model", "endpoint-config", "endpoint")

__all__ = ["KINDS", "Tags", "check_tags"]


def check_tags(tags: list[dict[str, str]]) -> dict[str, str]:
    """Tags of a request as a dict; raises ValidationException for reserved and repeated keys."""
    keys = [tag["Key"] for tag in tags]
    reserved = [key for key in keys if key.lower().startswith("aws:")]
    if reserved:
        raise ValidationException(
            f"Tag keys must not start with 'aws:', which is reserved: {', '.join(reserved)}"
        )
    repeated = sorted({key for key in keys if keys.count(key) > 1})
    if repeated:
        raise ValidationException(f"Tag keys must be unique: {', '.join(repeated)}")
    return {tag["Key"]: tag["Value"] for tag in tags}


class Tags:
    """Tag operations over the state; only ARNs of existing resources are accepted."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.operations: dict[str, Callable[[Caller, dict[str, Any]], dict[str, Any]]] = {
            "AddTags": self.add,
            "ListTags": self.list,
            "DeleteTags": self.delete,
        }

    def owns(self, arn: str) -> bool:
        """Whether `arn` is of a kind that this server runs, existing or not."""
        return _kind(arn) in KINDS

    def add(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Add or replace tags; the answer has all the tags of the resource."""
        arn = self._existing(caller, request)
        tags = {**self._state.tags(arn), **check_tags(request["Tags"])}
        if len(tags) > TAGS_LIMIT:
            raise AwsError(
                "ResourceLimitExceeded", f"A resource has at most {TAGS_LIMIT} tags: {arn}"
            )
        self._state.set_tags(arn, tags)
        return self._answer(arn)

    def list(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """All the tags: at most 50, which is the least page that a client may ask for."""
        if "NextToken" in request:
            raise ValidationException(
                f'Invalid pagination token because "{request["NextToken"][:100]}".'
            )
        return self._answer(self._existing(caller, request))

    def delete(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        """Remove the tags with these keys; keys that are not there are no error."""
        self._state.remove_tags(self._existing(caller, request), request["TagKeys"])
        return {}

    def _answer(self, arn: str) -> dict[str, Any]:
        tags = sorted(self._state.tags(arn).items())
        return {"Tags": [{"Key": key, "Value": value} for key, value in tags]}

    def _existing(self, caller: Caller, request: dict[str, Any]) -> str:
        arn = str(request["ResourceArn"])
        kind = _kind(arn)
        if kind not in KINDS:
            raise ValidationException(
                f'Tags of "{arn}" are not kept here; taggable: {", ".join(KINDS)}'
            )
        if not any(row.arn == arn for row in self._state.list(kind, caller)):
            raise ValidationException(f'Could not find {kind.replace("-", " ")} "{arn}".')
        return arn


def _kind(arn: str) -> str:
    parts = arn.split(":", 5)
    return parts[5].split("/", 1)[0] if len(parts) == 6 else ""
