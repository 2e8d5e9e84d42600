"""Metrics: one stable line on stdout, which SageMaker's expressions read, and a line of JSON.

    train:loss=0.123456; step=4
"""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from byoa.container.contract import MetricDefinition
from byoa.container.errors import AlgorithmError

METRICS_FILE = "metrics.jsonl"
NAME_LIMIT_CHARACTERS = 255  # TRAIN-26
# A name may follow the line's start, a space, or the `>:` of an MPI prefix (TK-11). What is
# captured parses as a number, scientific notation included; nan and inf do not (TRAIN-190).
_EXPRESSION = r"(?:^|\s|>:){name}=(-?[0-9]+(?:\.[0-9]+)?(?:e[-+][0-9]+)?)(?:;|\s|$)"
_FORBIDDEN = re.compile(r"[\s=;]")


class Metrics:
    """Where an algorithm reports its figures.

    Only the first host prints, because SageMaker would take the same metric of every host as so
    many data points (TRAIN-194); every host writes its file.
    """

    def __init__(
        self,
        directory: Path,
        *,
        host: str = "algo-1",
        leader: bool = True,
        end_line: Callable[[], None] = lambda: None,
    ) -> None:
        self.path = directory / METRICS_FILE
        self._host = host
        self._leader = leader
        self._end_line = end_line  # ends a line that the author left open

    def log(self, name: str, value: Any, step: int | None = None) -> None:
        """Report `value`, any number (a NumPy or torch scalar too), at `step` (epoch, batch …)."""
        if not name or len(name) > NAME_LIMIT_CHARACTERS or _FORBIDDEN.search(name):
            raise AlgorithmError(
                "METRIC_NAME_INVALID", f"{name!r} cannot name a metric",
                expected=f"1 to {NAME_LIMIT_CHARACTERS} characters without space, = and ;",
                remedy="write it as in train:loss or validation:accuracy",
            )
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise AlgorithmError(
                "METRIC_VALUE_INVALID", f"the value of {name} is a {type(value).__name__}",
                expected="a number",
            ) from None
        self._append(name, number, step)
        if self._leader:
            self._end_line()
            # One write, so that the line of another thread cannot come in between.
            sys.stdout.write(f"{format_line(name, number, step)}\n")
            sys.stdout.flush()

    def _append(self, name: str, number: float, step: int | None) -> None:
        record = {
            "name": name,
            "value": number if math.isfinite(number) else str(number),  # JSON has no nan
            "step": step,
            "time": round(time.time(), 3),
            "host": self._host,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    @staticmethod
    def definitions(names: Iterable[str]) -> list[MetricDefinition]:
        """The MetricDefinitions of a training job with which SageMaker reads these metrics."""
        return [
            MetricDefinition(name, _EXPRESSION.replace("{name}", re.escape(name)))
            for name in names
        ]


def format_line(name: str, value: float, step: int | None = None) -> str:
    """The line: nine significant digits, which is every digit of a float32."""
    return f"{name}={value:.9g}" + ("" if step is None else f"; step={step}")
