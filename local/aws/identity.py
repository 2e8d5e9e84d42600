"""Who the caller is and what roles exist: the answers without which no SageMaker client starts.

GetCallerIdentity is an assumed role, GetRole knows every name, SimulatePrincipalPolicy allows
everything. Identities and roles that were really made (moto's STS and IAM) win.
"""

from __future__ import annotations

import json
import threading
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from byoa.local.api.serialization import request_id
from byoa.local.aws.moto_app import Moto

ROLE = "byoa-execution-role"  # what a caller with any unknown credentials has assumed
SESSION = "byoa"
_STS = "https://sts.amazonaws.com/doc/2011-06-15/"
_IAM = "https://iam.amazonaws.com/doc/2010-05-08/"
_TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": ["sagemaker.amazonaws.com"]},
            "Action": "sts:AssumeRole",
        }
    ],
}

__all__ = ["ROLE", "Identity"]


class Identity:
    """The facade before moto's STS and IAM."""

    def __init__(self, moto: Moto) -> None:
        self._moto = moto
        self._lock = threading.Lock()
        self._deleted: set[str] = set()

    def answer(self, service: str, form: dict[str, str], key: str) -> bytes | None:
        """The XML of the answer; None where moto is to answer.

        `form` are the parameters of the query protocol, `key` the caller's access key id.
        """
        action = form.get("Action", "")
        if service == "sts" and action == "GetCallerIdentity":
            return self._caller(key)
        if service == "iam" and action == "SimulatePrincipalPolicy":
            return _allowed(form)
        if service == "iam":
            self._roles(action, form.get("RoleName", ""))
        return None

    def _caller(self, key: str) -> bytes | None:
        account = self._moto.account
        if key and self._made(key):
            return None
        arn = f"arn:aws:sts::{account}:assumed-role/{ROLE}/{SESSION}"
        return _xml(
            _STS,
            "GetCallerIdentity",
            f"<Arn>{arn}</Arn><UserId>AROA{account}BYOA:{SESSION}</UserId>"
            f"<Account>{account}</Account>",
        )

    def _made(self, key: str) -> bool:
        """Whether moto gave this access key out, for a user or an assumed role."""
        with self._moto.lock("iam"):
            from moto.iam.models import iam_backends

            return any(
                key in backend.access_keys
                for partitions in list(iam_backends.values())
                for backend in list(partitions.values())
            )

    def _roles(self, action: str, name: str) -> None:
        """Make a role on first sight, so that policies can be attached to it and it is listed."""
        if not name:
            return
        with self._lock:
            if action == "DeleteRole":
                self._deleted.add(name)
            if action != "GetRole" or name in self._deleted:
                return
        with self._moto.lock("iam"):
            backend = self._moto.backend("iam", "global")
            if any(role.name == name for role in backend.roles.values()):
                return
            # The console creates its execution roles under this path, and the SDK guesses it.
            service = name.startswith("AmazonSageMaker-ExecutionRole")
            backend.create_role(
                role_name=name,
                assume_role_policy_document=json.dumps(_TRUST),
                path="/service-role/" if service else "/",
                permissions_boundary=None,
                description="made on first sight",
                tags=[],
                max_session_duration="3600",
            )


def parameters(query: str, body: bytes) -> dict[str, str]:
    """The parameters of a request of the query protocol, from its URL and its form."""
    pairs: dict[str, list[str]] = {
        **parse_qs(query, keep_blank_values=True),
        **parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True),
    }
    return {name: values[0] for name, values in pairs.items()}


def _allowed(form: dict[str, str]) -> bytes:
    actions = _members(form, "ActionNames")
    resources = _members(form, "ResourceArns") or ["*"]
    results = "".join(
        f"<member><EvalActionName>{escape(action)}</EvalActionName>"
        f"<EvalResourceName>{escape(resource)}</EvalResourceName>"
        "<EvalDecision>allowed</EvalDecision><MatchedStatements/><MissingContextValues/></member>"
        for action in actions
        for resource in resources
    )
    return _xml(
        _IAM,
        "SimulatePrincipalPolicy",
        f"<EvaluationResults>{results}</EvaluationResults><IsTruncated>false</IsTruncated>",
    )


def _members(form: dict[str, str], name: str) -> list[str]:
    found: list[tuple[int, str]] = []
    for key, value in form.items():
        head, _, index = key.rpartition(".")
        if head in (f"{name}.member", name) and index.isdigit():
            found.append((int(index), value))
    return [value for _, value in sorted(found)]


def _xml(namespace: str, action: str, result: str) -> bytes:
    return (
        f'<{action}Response xmlns="{namespace}"><{action}Result>{result}</{action}Result>'
        f"<ResponseMetadata><RequestId>{request_id()}</RequestId></ResponseMetadata>"
        f"</{action}Response>"
    ).encode()
