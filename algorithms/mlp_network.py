"""The network of mlp-classifier: normalization, hidden layers, one output for each class.

Its tensors, the normalization included, are all that a saved model holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


@dataclass(frozen=True)
class Shape:
    """What the network's tensors depend on."""

    features: int
    hidden_units: list[int]
    activation: str
    labels: list[int]


class Network(nn.Module):
    """Normalization, then the layers; records (n, features) → logits (n, classes)."""

    mean: Tensor
    std: Tensor

    def __init__(self, shape: Shape, *, dropout: float = 0.0, input_noise: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape.features))
        self.register_buffer("std", torch.ones(shape.features))
        self.input_noise = input_noise
        layers: list[nn.Module] = []
        width = shape.features
        for units in shape.hidden_units:
            layers += [nn.Linear(width, units), _ACTIVATIONS[shape.activation]()]
            layers.append(nn.Dropout(dropout))
            width = units
        self.layers = nn.Sequential(*layers, nn.Linear(width, len(shape.labels)))

    def forward(self, records: Tensor) -> Tensor:
        inputs = (records - self.mean) / self.std
        if self.training and self.input_noise:
            inputs = inputs + self.input_noise * torch.randn_like(inputs)
        logits: Tensor = self.layers(inputs)
        return logits
