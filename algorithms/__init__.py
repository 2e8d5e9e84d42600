"""The authoring API: derive from `Algorithm` or `StreamingAlgorithm`, declare `Hyperparameters`
with `param`.

Standard library only, so that importing it costs nothing on the way to the author's first line.
"""

from __future__ import annotations

from byoa.algorithms.base import Algorithm
from byoa.algorithms.classes import find_classes
from byoa.algorithms.hyperparameters import Hyperparameters, param
from byoa.algorithms.messages import Messages, MessagesEnded
from byoa.algorithms.streaming import StreamingAlgorithm
from byoa.container.run import Run

__all__ = [
    "Algorithm", "Hyperparameters", "Messages", "MessagesEnded", "Run", "StreamingAlgorithm",
    "find_classes", "param",
]
