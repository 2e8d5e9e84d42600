"""The `context` that an inference script's functions may take as their last argument.

Its methods are those of multi-model-server's, for which such scripts are written; the index that
they take is that of a request in a batch, which is 0 here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from byoa.container import contract
from byoa.container.errors import AlgorithmError
from byoa.serve.messages import Request
from byoa.serve.pieces import Told
from byoa.serve.sessions import Session

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class Context:
    """Of one request, or of loading where there is none. `system_properties`: model_dir, gpu_id
    (None on a CPU), batch_size, server_name. A conversation's `answers` nothing: what is said of an
    answer is refused."""

    def __init__(
        self, model_dir: Path, device: str, request: Request | None = None, request_id: str = "",
        session: Session | None = None, *, answers: bool = True,
    ) -> None:
        self.model_name = model_dir.name
        self.manifest: dict[str, Any] = {}
        self.system_properties: dict[str, Any] = {
            "model_dir": str(model_dir),
            "gpu_id": 0 if device == "cuda" else None,
            "batch_size": 1,
            "server_name": "byoa",
        }
        headers: Mapping[str, str] = {} if request is None else request.headers
        # The LoRA adapter that the request names, loaded; None for the model as it is.
        self.adapter: str | None = headers.get(contract.ADAPTER_HEADER)
        self.adapter_alias: str | None = headers.get(contract.ADAPTER_ALIAS_HEADER)
        self.session = session  # None where sessions are off, or the request has none
        self.status = 200
        self.content_type: str | None = None
        self._request = request
        self._request_id = request_id
        self._headers: dict[str, str] = {}
        self._answers = answers

    # --- the request ---

    def get_request_id(self, idx: int = 0) -> str:
        _first(idx)
        return self._request_id

    def get_request_header(self, idx: int, key: str) -> str | None:
        """A header of the request, whatever the case of its name; None where it has none."""
        return self.get_all_request_header(idx).get(key.lower())

    def get_all_request_header(self, idx: int) -> dict[str, str]:
        """All headers, by their names in lower case."""
        _first(idx)
        return dict(self._request.headers) if self._request is not None else {}

    # --- the answer ---

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        """The status of the answer, 200 to 599; HTTP's own phrase goes with it."""
        self._check_answer(idx)
        if not (isinstance(code, int) and 200 <= code <= 599):
            raise AlgorithmError(
                "CONTEXT_STATUS", f"{code!r} is no status of an answer", expected="200 to 599"
            )
        self.status = int(code)

    def set_response_content_type(self, idx: int, value: str) -> None:
        self._check_answer(idx)
        self.content_type = header_text("content type", value)

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        self._check_answer(idx)
        if not _NAME.fullmatch(header_text("header's name", key)):
            raise AlgorithmError("CONTEXT_HEADER", f"{key!r} is no header's name")
        self._headers[key] = header_text(f"value of {key}", value)

    def get_response_headers(self, idx: int) -> dict[str, str]:
        _first(idx)
        return dict(self._headers)

    def _check_answer(self, idx: int) -> None:
        _first(idx)
        if not self._answers:
            raise AlgorithmError(
                "CONTEXT_NO_ANSWER", "a conversation has no status, type or headers of an answer",
                expected="messages that converse_fn yields",
            )

    def told(self) -> Told:
        """What has been said of the answer so far."""
        return Told(self.status, self.content_type, self.headers)

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        return tuple(
            (name, value) for name, value in self._headers.items()
            if name.lower() not in ("content-type", "content-length")
        )


def _first(idx: int) -> None:
    if idx != 0:
        raise AlgorithmError(
            "CONTEXT_INDEX", f"the context has no request {idx}",
            expected="0: handlers are called for one request at a time",
        )


def header_text(what: str, value: Any) -> str:
    """The value where it may stand in a head: text of one line, in Latin-1."""
    text = value if isinstance(value, str) else ""
    if text and not _CONTROL.search(text) and text.encode("latin-1", "replace").decode(
        "latin-1"
    ) == text:
        return text
    raise AlgorithmError(
        "CONTEXT_HEADER", f"the {what} is {value!r}", expected="text of one line, in Latin-1",
    )
