"""Named arrays and scalars as files or as one message, without pickle: npz, and JSON for the rest.

    <name>.npz     the arrays
    <name>.json    numbers, strings, lists and dicts of them
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from byoa.container.errors import AlgorithmError

State: TypeAlias = dict[str, Any]

_SCALARS = "/scalars"  # no name of an author's array: the member of a message that is JSON


def write(directory: Path, name: str, state: Mapping[str, Any]) -> None:
    """Write both files into `directory`."""
    import numpy as np

    arrays, scalars = _split(state)
    np.savez(directory / f"{name}.npz", **arrays)
    (directory / f"{name}.json").write_text(json.dumps(scalars, indent=1), encoding="utf-8")


def read(directory: Path, name: str) -> State:
    """What `write` left. Raises AlgorithmError MODEL_UNREADABLE."""
    import zipfile

    import numpy as np

    try:
        state: State = json.loads((directory / f"{name}.json").read_text(encoding="utf-8"))
        with np.load(directory / f"{name}.npz", allow_pickle=False) as arrays:
            state.update(arrays)
    except FileNotFoundError:
        raise  # the server lists what is there instead
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise AlgorithmError(
            "MODEL_UNREADABLE", f"{type(error).__name__}: {error}", where=str(directory),
            expected=f"{name}.npz and {name}.json as byoa wrote them",
        ) from error
    return state


def pack(state: Mapping[str, Any]) -> bytes:
    """The state as one message, for another host."""
    import numpy as np

    arrays, scalars = _split(state)
    arrays[_SCALARS] = np.frombuffer(json.dumps(scalars).encode(), dtype=np.uint8)
    message = io.BytesIO()
    np.savez(message, **arrays)
    return message.getvalue()


def unpack(message: bytes) -> State:
    """The state that `pack` wrote."""
    import numpy as np

    with np.load(io.BytesIO(message), allow_pickle=False) as arrays:
        state: State = json.loads(arrays[_SCALARS].tobytes())
        state.update((name, arrays[name]) for name in arrays.files if name != _SCALARS)
    return state


def _split(state: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays (tensors come to the CPU) and what JSON can carry."""
    import numpy as np

    arrays: dict[str, Any] = {}
    scalars: dict[str, Any] = {}
    for name, value in state.items():
        if hasattr(value, "detach"):
            value = value.detach().cpu().numpy()
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, np.ndarray):
            if value.dtype.kind not in "biufcUS":
                raise _not_plain(name, f"an array of {value.dtype}")
            arrays[name] = value
            continue
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            raise _not_plain(name, type(value).__name__) from None
        scalars[name] = value
    return arrays, scalars


def _not_plain(name: str, what: str) -> AlgorithmError:
    return AlgorithmError(
        "STATE_NOT_PLAIN", f"{name!r} in the state is {what}",
        expected="arrays, and scalars that JSON can carry, so that it can be saved and sent",
    )
