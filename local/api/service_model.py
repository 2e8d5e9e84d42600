"""botocore's own models of the SageMaker APIs, loaded on first use and kept.

They give operations, shapes, enums and patterns, so that byoa's wire format is AWS's by data.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # botocore costs 50 ms and more: nothing here is imported at the CLI's start
    from botocore.model import OperationModel, ServiceModel

CONTROL = "sagemaker"
RUNTIME = "sagemaker-runtime"
_API_VERSIONS = {CONTROL: "2017-07-24", RUNTIME: "2017-05-13"}

__all__ = ["CONTROL", "RUNTIME", "nearest", "operation", "service"]


@cache
def service(name: str) -> ServiceModel:
    """The model of `sagemaker` or `sagemaker-runtime`."""
    from botocore.loaders import Loader
    from botocore.model import ServiceModel

    document = Loader().load_service_model(name, "service-2", _API_VERSIONS.get(name))
    return ServiceModel(document, name)


@cache
def operation(service_name: str, name: str) -> OperationModel | None:
    """The operation's model; None when the API has no operation of that name."""
    model = service(service_name)
    return model.operation_model(name) if name in model.operation_names else None


def nearest(name: str, names: Iterable[str]) -> list[str]:
    """Up to three of `names` that resemble `name`, best first."""
    return difflib.get_close_matches(name, sorted(names), n=3, cutoff=0.6)
