"""AWS-facing errors: exact code, HTTP status and message of the service (WIRE-04 … WIRE-06)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class AwsError(Exception):
    """An error as AWS answers it. `members` are further members of a modeled error shape."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int = 400,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
        self.members = dict(members or {})


class ValidationException(AwsError):
    """The most used error of the control plane; unmodeled, status 400."""

    def __init__(self, message: str) -> None:
        super().__init__("ValidationException", message)


class ResourceInUse(AwsError):
    def __init__(self, message: str) -> None:
        super().__init__("ResourceInUse", message)


class UnknownOperation(AwsError):
    """An operation that is not run here; the message names the nearest one that is."""

    def __init__(self, message: str) -> None:
        super().__init__("UnknownOperationException", message)
