"""The tour's data: the 1,797 handwritten digits of 8×8 pixels that ship with scikit-learn.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI repository.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

CLASSES = tuple(range(10))
SIDE = 8


@dataclass(frozen=True)
class Split:
    """`pixels` (n, 64) float from 0 to 16, `labels` (n,) int from 0 to 9."""

    pixels: Any
    labels: Any

    def __len__(self) -> int:
        return len(self.labels)

    def csv(self, *, with_labels: bool) -> bytes:
        """One record a line, no header; SageMaker wants the label first (TRAIN-125)."""
        lines = []
        for label, row in zip(self.labels.tolist(), self.pixels.tolist(), strict=True):
            cells = [f"{value:g}" for value in row]
            lines.append(",".join([str(label), *cells] if with_labels else cells))
        return ("\n".join(lines) + "\n").encode()


def load(seed: int) -> dict[str, Split]:
    """Clean digits, split 70/15/15 into train, validation and test, stratified by label.

    Cleaning drops records that repeat an earlier one, have a pixel outside 0…16 or not a number.
    """
    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    in_range = (np.isfinite(pixels) & (pixels >= 0) & (pixels <= 16)).all(axis=1)
    first = np.zeros(len(pixels), dtype=bool)
    first[np.unique(pixels, axis=0, return_index=True)[1]] = True
    pixels, labels = pixels[in_range & first], labels[in_range & first]
    x_train, x_rest, y_train, y_rest = train_test_split(
        pixels, labels, test_size=0.3, stratify=labels, random_state=seed
    )
    x_validation, x_test, y_validation, y_test = train_test_split(
        x_rest, y_rest, test_size=0.5, stratify=y_rest, random_state=seed
    )
    return {
        "train": Split(x_train, y_train),
        "validation": Split(x_validation, y_validation),
        "test": Split(x_test, y_test),
    }
