"""nearest-centroid: classify a record by its nearest class mean."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from byoa.algorithms import Algorithm, Run, find_classes, param


class NearestCentroid(Algorithm):
    metrics = ("train:accuracy",)

    class Hyperparameters(Algorithm.Hyperparameters):
        metric: Literal["l2", "cosine"] = param("l2", doc="distance to a class mean")

    def train(self, run: Run) -> None:
        records, labels = run.channel("train").load()
        classes, members = find_classes(labels)
        means = np.stack([records[members == k].mean(0, float) for k in range(len(classes))])
        if self.hyperparameters.metric == "cosine":
            means /= np.linalg.norm(means, axis=1, keepdims=True) + 1e-12
        np.savez(run.model_dir / "centroids.npz", means=means, classes=classes)
        predicted = self.predict(self.load(run.model_dir, run.device), records)
        run.metrics.log("train:accuracy", np.mean(predicted == labels))

    def load(self, model_dir: Path, device: str) -> dict[str, np.ndarray]:
        with np.load(model_dir / "centroids.npz", allow_pickle=False) as arrays:
            return dict(arrays)

    def predict(self, model: dict[str, np.ndarray], records: np.ndarray) -> np.ndarray:
        means = model["means"]  # |x - m|² is least where x·m - |m|²/2 is greatest
        closeness = records @ means.T - (means**2).sum(axis=1) / 2
        labels: np.ndarray = model["classes"][closeness.argmax(axis=1)]
        return labels
