"""CloudWatch metrics: what jobs and endpoints measure, as any `cloudwatch` client reads it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timezone

from byoa.local.aws.moto_app import Moto
from byoa.local.settings import Caller

__all__ = ["Metrics"]


class Metrics:
    """The writer's side of the metric service, in the caller's region."""

    def __init__(self, moto: Moto) -> None:
        self._moto = moto

    def put(
        self,
        caller: Caller,
        namespace: str,
        name: str,
        value: float,
        *,
        dimensions: Mapping[str, str],
        timestamp: float,
        unit: str | None = None,
    ) -> bool:
        """Record one value at `timestamp` (epoch seconds).

        False, and nothing recorded, for NaN and infinities: the service has no such values.
        """
        if not math.isfinite(value):
            return False
        datum = {
            "MetricName": name,
            "Value": float(value),
            "Timestamp": datetime.fromtimestamp(timestamp, timezone.utc).replace(tzinfo=None),
            "Dimensions": [{"Name": key, "Value": text} for key, text in dimensions.items()],
            **({"Unit": unit} if unit else {}),
        }
        with self._moto.lock("cloudwatch"):
            backend = self._moto.backend("cloudwatch", caller.region)
            backend.put_metric_data(namespace, [datum])
        return True
