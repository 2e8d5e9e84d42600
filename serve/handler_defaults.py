"""What stands in for the functions that an inference script leaves out.

    model_fn    byoa.json's algorithm, or the only TorchScript file
    input_fn    the records of the body, by its Content-Type: float32 (n, features)
    predict_fn  the model's own predict, or a call of a torch module
    output_fn   the prediction in the type that Accept asks for

Nothing is unpickled: a model of another kind needs a model_fn.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from byoa.container.errors import AlgorithmError
from byoa.container.formats import json_document, registry
from byoa.container.formats.json_text import dumps
from byoa.container.formats.limits import Limits
from byoa.container.formats.predictions import plain
from byoa.container.manifest import MANIFEST
from byoa.container.media_types import parse_media_type
from byoa.serve import records
from byoa.serve.model import Loaded, contents, load_algorithm
from byoa.serve.pieces import Pieces, negotiate

_TORCH_SUFFIXES = (".pt", ".pth")


def model_fn(model_dir: Path, device: str, *, alone: bool) -> Any:
    """Raises AlgorithmError where the directory's files do not say how to load them."""
    if (model_dir / MANIFEST).is_file():
        return load_algorithm(model_dir, device=device, alone=alone)
    files = [path for path in sorted(model_dir.iterdir()) if path.suffix in _TORCH_SUFFIXES]
    if len(files) == 1:
        return _torch_script(files[0], device)
    raise AlgorithmError(
        "MODEL_FN_MISSING",
        f"the inference script defines no model_fn, and {contents(model_dir)}",
        where=str(model_dir),
        expected=f"{MANIFEST} of a byoa training job, or one TorchScript file"
        f" ({' or '.join(_TORCH_SUFFIXES)}), where there is no model_fn",
        remedy="define model_fn(model_dir), which loads the model and returns it",
    )


def _torch_script(path: Path, device: str) -> Any:
    try:
        import torch
    except ImportError:
        raise AlgorithmError(
            "MODEL_FN_MISSING", f"there is no model_fn, and {path.name} needs torch, which is not"
            " installed",
            where=str(path), expected="torch in the image, or a model_fn that does without",
            remedy="take an image built with TORCH_VARIANT=cpu",
        ) from None
    try:
        return torch.jit.load(str(path), map_location=device).eval()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise AlgorithmError(
            "MODEL_FN_MISSING", f"{path.name} is no TorchScript file: {str(error)[:200]}",
            where=str(path), expected="what torch.jit.save wrote, where there is no model_fn",
            remedy="define model_fn(model_dir): a state_dict, for example, is loaded into a module"
            " that the script makes",
        ) from None


def input_fn(body: bytes, content_type: str, model: Any, limits: Limits) -> Any:
    """The records, as many columns as a byoa model has."""
    features = model.features if isinstance(model, Loaded) else None
    decoder = registry.find(content_type)
    return records.decode(decoder, body, parse_media_type(content_type), features, limits)


def predict_fn(data: Any, model: Any, device: str) -> Any:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(model, torch.nn.Module):
        import numpy as np

        if isinstance(data, np.ndarray):
            data = torch.from_numpy(data).to(device)
        with torch.inference_mode():
            return model(data)
    predict = getattr(model, "predict", None)
    if callable(predict):
        return predict(data)
    raise AlgorithmError(
        "PREDICT_FN_MISSING",
        f"the inference script defines no predict_fn, and its model, a {type(model).__name__},"
        " has no method predict",
        expected="a model with a method predict, or a torch module, where there is no predict_fn",
        remedy="define predict_fn(data, model)",
    )


def output_fn(prediction: Any, accept: str, default: str) -> tuple[bytes, str] | Pieces:
    """The prediction as the body of an answer, with its type; what yields stays as it is.

    As JSON it is the prediction itself, without a word around it, as in AWS's own images.
    """
    if isinstance(prediction, Iterator):
        return Pieces(prediction, negotiate(accept))
    encoder, media = registry.negotiate(accept, default)
    prediction = _host_array(prediction)
    if encoder is json_document.FORMAT:
        return dumps(plain(prediction)), str(media)
    return encoder.encode(prediction, media), str(media)


def _host_array(prediction: Any) -> Any:
    """A torch tensor, wherever it is, as what NumPy can read."""
    torch = sys.modules.get("torch")
    if torch is None:
        return prediction
    if isinstance(prediction, torch.Tensor):
        return prediction.detach().cpu().numpy()
    if isinstance(prediction, dict):
        return {name: _host_array(value) for name, value in prediction.items()}
    if isinstance(prediction, (list, tuple)):
        return [_host_array(value) for value in prediction]
    return prediction
