"""Script-mode inference: a model that the author's own inference.py loads and answers with.

The script's functions are called for one request at a time, on the model's thread. What they leave
out, the defaults do.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from byoa.algorithms import Messages
from byoa.container.errors import AlgorithmError, DataError
from byoa.container.formats.limits import LIMITS, Limits
from byoa.serve import handler_defaults, handlers
from byoa.serve.handler_context import Context, header_text
from byoa.serve.handlers import Handler
from byoa.serve.messages import Answer, Request
from byoa.serve.model import own_modules
from byoa.serve.pieces import Pieces, Told
from byoa.serve.sessions import Session

# The types whose bodies a handler is given as text; all others come as bytes.
_TEXT = ("application/json", "text/csv")
_UNTYPED = "application/octet-stream"


class InferenceScript:
    """A script with its model in memory. `name` is the script's file."""

    def __init__(
        self, path: Path, functions: Mapping[str, Handler], model: Any, model_dir: Path, device: str
    ) -> None:
        self.name = path.name
        self._functions = functions
        self._model = model
        self._model_dir = model_dir
        self._device = device

    @property
    def adapts(self) -> bool:
        """Whether the script loads LoRA adapters."""
        return "load_adapter" in self._functions

    def load_adapter(self, name: str, path: Path) -> None:
        """Raises what the author's function raises."""
        self._functions["load_adapter"](self._model, name, str(path))

    def unload_adapter(self, name: str) -> None:
        self._functions["unload_adapter"](self._model, name)

    def respond(
        self, request: Request, default_accept: str, request_id: str,
        session: Session | None = None, limits: Limits = LIMITS,
    ) -> Answer | Pieces:
        """The answer to a request; raises what the author's functions raise, and DataError for
        what the defaults cannot read or write; `limits` are those of the default input_fn."""
        headers = request.headers
        content_type = headers.get("content-type", "")
        asked = headers.get("accept", "").strip()
        accept = default_accept if asked in ("", "*/*") else asked  # ITK-04
        context = Context(self._model_dir, self._device, request, request_id, session)
        result = self._result(request.body, content_type, accept, context, limits)
        return self._answer(result, accept, asked, default_accept, context)

    @property
    def converses(self) -> bool:
        return "converse_fn" in self._functions

    def converse(self, messages: Messages, request: Request, request_id: str) -> Any:
        """What converse_fn says to a client, piece by piece; raises what it raises."""
        context = Context(self._model_dir, self._device, request, request_id, answers=False)
        return self._functions["converse_fn"](messages, self._model, context=context)

    def _result(
        self, body: bytes, content_type: str, accept: str, context: Context, limits: Limits
    ) -> Any:
        functions = self._functions
        transform = functions.get("transform_fn")
        data: Any
        if transform is not None:
            data = _given(body, content_type)
            return transform(
                self._model, data, content_type or _UNTYPED, accept, context=context
            )
        take, predict, give = (
            functions.get(name) for name in ("input_fn", "predict_fn", "output_fn")
        )
        if take is None:
            data = handler_defaults.input_fn(body, content_type, self._model, limits)
        else:
            data = take(_given(body, content_type), content_type or _UNTYPED, context=context)
        if predict is None:
            prediction = handler_defaults.predict_fn(data, self._model, self._device)
        else:
            prediction = predict(data, self._model, context=context)
        if give is None:
            return _Prediction(prediction)
        return give(prediction, accept, context=context)

    def _answer(
        self, result: Any, accept: str, asked: str, default: str, context: Context
    ) -> Answer | Pieces:
        content_type = None
        if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], str):
            result, content_type = result[0], header_text("content type", result[1])
        if isinstance(result, Iterator):  # its own words come later
            own = content_type or _plain(accept, asked)
            return Pieces(result, own, True, lambda: _own(context.told(), content_type))
        content_type = content_type or context.content_type
        if isinstance(result, str):
            result = result.encode()
        if isinstance(result, (bytes, bytearray, memoryview)):
            body = bytes(result)
        elif result is None:
            raise AlgorithmError(
                "PREDICTIONS_MISMATCH", f"{self.name} answered None",
                expected="the body of the answer: bytes or text, or (body, content type)",
                remedy="return it from output_fn or transform_fn",
            )
        else:  # what the defaults are to write
            value = result.value if isinstance(result, _Prediction) else result
            made = handler_defaults.output_fn(value, asked if asked else "", default)
            if isinstance(made, Pieces):
                return made._replace(told=context.told)
            body, written = made
            content_type = content_type or written
        return Answer(
            context.status, body, content_type or _plain(accept, asked), context.headers
        )


class _Prediction:
    """What predict_fn returned, to be written by the defaults whatever it is."""

    def __init__(self, value: Any) -> None:
        self.value = value


def load(path: Path, model_dir: Path, device: str, *, alone: bool) -> InferenceScript:
    """Import the script and load its model. Raises AlgorithmError, and what the script raises.

    Where it is not `alone` in the process, its modules are its own, as in `loading.load`.
    """
    sys.dont_write_bytecode = True  # the model directory is read-only by contract (HOST-40)
    with contextlib.ExitStack() as stack:
        for directory in dict.fromkeys((path.parent, model_dir / "code")):
            if directory.is_dir():
                stack.enter_context(own_modules(directory, alone))
        functions = handlers.find(_module(path))
    before = functions.get("pre_model_fn")
    if before is not None:
        before(str(model_dir))
    loader = functions.get("model_fn")
    if loader is None:
        model = handler_defaults.model_fn(model_dir, device, alone=alone)
    else:
        model = loader(str(model_dir), context=Context(model_dir, device))
    warm_up = functions.get("model_warmup_fn")
    if warm_up is not None:
        warm_up(str(model_dir), model)
    return InferenceScript(path, functions, model, model_dir, device)


def _module(path: Path) -> Any:
    """The script as a module of its own name, as an import of it would make it."""
    name = path.stem
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise AlgorithmError(
            "INFERENCE_SCRIPT_INVALID", f"{path.name} is no Python file", where=str(path),
            expected="a file that ends in .py",
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _given(body: bytes, content_type: str) -> str | bytes:
    if content_type.partition(";")[0].strip().lower() not in _TEXT:
        return body
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            "BODY_MALFORMED", f"the body is not UTF-8: {error.reason} at byte {error.start}",
            expected=f"UTF-8 for {content_type}",
        ) from None


def _own(told: Told, content_type: str | None) -> Told:
    """What is returned beside the body counts before what the context was told."""
    return told if content_type is None else told._replace(content_type=content_type)


def _plain(accept: str, asked: str) -> str:
    """The type of an answer that names none: what was asked for, where that is one type."""
    first = accept.partition(",")[0].partition(";q=")[0].strip()
    return first if "*" not in first else _UNTYPED
