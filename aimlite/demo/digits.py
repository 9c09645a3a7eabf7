"""The data set: 1,797 handwritten digits, shuffled once and split into 1,437 to train on and 360 to validate with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DARKEST = 16
TRAINED_ON = 1437


@dataclass(frozen=True)
class Digits:
    """images: float64[n, 64] from 0 to 1; labels: int64[n] from 0 to 9."""

    images: NDArray[np.float64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, chosen: slice | NDArray[np.int64]) -> Digits:
        return Digits(self.images[chosen], self.labels[chosen])


def load() -> Digits:
    """All 1,797 digits in the order of the file. See DIGITS.md for where they come from."""
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as file:
        images, labels = file["images"], file["labels"]
    return Digits(images.reshape(len(images), -1) / DARKEST, labels.astype(np.int64))


def split(digits: Digits) -> tuple[Digits, Digits]:
    """(train, validation), the same two on every call."""
    shuffled = digits[np.random.default_rng(0).permutation(len(digits))]
    return shuffled[:TRAINED_ON], shuffled[TRAINED_ON:]
