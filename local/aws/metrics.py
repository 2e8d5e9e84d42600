"""CloudWatch metrics: what jobs and endpoints measure, as any `cloudwatch` client reads it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

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
        self._record(caller, namespace, name, dimensions, timestamp, unit, {"Value": float(value)})
        return True

    def put_statistics(
        self,
        caller: Caller,
        namespace: str,
        name: str,
        *,
        count: int,
        total: float,
        minimum: float,
        maximum: float,
        dimensions: Mapping[str, str],
        timestamp: float,
        unit: str | None = None,
    ) -> None:
        """Record `count` values at once by their sum and range, as StatisticValues."""
        statistics = {
            "SampleCount": count, "Sum": total, "Minimum": minimum, "Maximum": maximum,
        }
        self._record(
            caller, namespace, name, dimensions, timestamp, unit, {"StatisticValues": statistics}
        )

    def _record(
        self,
        caller: Caller,
        namespace: str,
        name: str,
        dimensions: Mapping[str, str],
        timestamp: float,
        unit: str | None,
        values: Mapping[str, Any],
    ) -> None:
        datum = {
            "MetricName": name,
            "Timestamp": datetime.fromtimestamp(timestamp, timezone.utc).replace(tzinfo=None),
            "Dimensions": [{"Name": key, "Value": text} for key, text in dimensions.items()],
            **values,
            **({"Unit": unit} if unit else {}),
        }
        with self._moto.lock("cloudwatch"):
            backend = self._moto.backend("cloudwatch", caller.region)
            backend.put_metric_data(namespace, [datum])
