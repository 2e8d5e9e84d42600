"""The functions of an inference script (ITK-01): which it has, and how they are called.

    model_fn(model_dir)                                    → the model
    input_fn(data, content_type)                           → what predict_fn takes
    predict_fn(data, model)                                → the prediction
    output_fn(prediction, accept)                          → the body, or (body, content type)
    transform_fn(model, data, content_type, accept)        in place of the last three
    converse_fn(messages, model)                           yields what is said to a client
    pre_model_fn(model_dir), model_warmup_fn(model_dir, model)
    load_adapter(model, name, path), unload_adapter(model, name)       both or none (SESS-04)

The first six may take the request's context as one argument more.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

from byoa.container.errors import AlgorithmError

_ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "model_fn": ("model_dir",),
    "input_fn": ("data", "content_type"),
    "predict_fn": ("data", "model"),
    "output_fn": ("prediction", "accept"),
    "transform_fn": ("model", "data", "content_type", "accept"),
    "converse_fn": ("messages", "model"),
    "pre_model_fn": ("model_dir",),
    "model_warmup_fn": ("model_dir", "model"),
    "load_adapter": ("model", "name", "path"),
    "unload_adapter": ("model", "name"),
}
_WITHOUT_CONTEXT = ("pre_model_fn", "model_warmup_fn", "load_adapter", "unload_adapter")
_ADAPTER = ("load_adapter", "unload_adapter")
_PARTS = ("input_fn", "predict_fn", "output_fn")
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Handler(NamedTuple):
    """One of the author's functions."""

    function: Callable[..., Any]
    takes_context: bool

    def __call__(self, *arguments: Any, context: Any = None) -> Any:
        return self.function(*arguments, context) if self.takes_context else (
            self.function(*arguments)
        )


def find(module: ModuleType) -> dict[str, Handler]:
    """The handlers of a module, by name. Raises AlgorithmError where they do not go together, take
    other arguments, or where there are none."""
    where = getattr(module, "__file__", None)
    found = {
        name: _handler(name, getattr(module, name), where)
        for name in _ARGUMENTS if hasattr(module, name)
    }
    if not found:
        raise AlgorithmError(
            "HANDLERS_MISSING", f"{module.__name__} defines none of {', '.join(_ARGUMENTS)}",
            where=where, expected="at least one of them, at the module's top level",
            remedy="name the file that has them in SAGEMAKER_PROGRAM",
        )
    both = [name for name in _PARTS if name in found]
    if "transform_fn" in found and both:
        raise AlgorithmError(
            "HANDLERS_AMBIGUOUS", f"transform_fn is defined beside {', '.join(both)}",
            where=where, expected="transform_fn alone, or input_fn, predict_fn and output_fn",
            remedy="remove what is not meant",
        )
    one = [name for name in _ADAPTER if name in found]
    if len(one) == 1:
        raise AlgorithmError(
            "HANDLERS_MISSING", f"{one[0]} is defined without the other", where=where,
            expected="load_adapter(model, name, path) and unload_adapter(model, name)",
            remedy="define both, or neither",
        )
    return found


def _handler(name: str, function: Any, where: str | None) -> Handler:
    expected = f"{name}({', '.join(_ARGUMENTS[name])})" + (
        "" if name in _WITHOUT_CONTEXT else ", or with `context` as one argument more"
    )
    if not callable(function):
        raise AlgorithmError(
            "HANDLER_INVALID", f"{name} is a {type(function).__name__}, no function",
            where=where, expected=expected,
        )
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise AlgorithmError(
            "HANDLER_INVALID", f"{name} is asynchronous", where=where,
            expected=f"{expected}: a plain function, or one that yields",
        )
    count = len(_ARGUMENTS[name])
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a callable that does not tell: of C, say
        return Handler(function, False)
    positional = [each for each in signature.parameters.values() if each.kind in _POSITIONAL]
    needed = [each for each in positional if each.default is each.empty]
    if name not in _WITHOUT_CONTEXT and (
        len(needed) == count + 1
        or any(each.name == "context" for each in positional[count : count + 1])
    ):
        return Handler(function, True)
    try:
        signature.bind(*range(count))
    except TypeError as error:
        raise AlgorithmError(
            "HANDLER_INVALID", f"{name}{signature} cannot be called so: {error}", where=where,
            expected=expected,
        ) from None
    return Handler(function, False)
