"""A network with one hidden layer (ReLU) and a softmax over ten digits; its loss is cross-entropy, it learns by descent with momentum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aimlite.demo.digits import Digits

Array = NDArray[np.float64]
PIXELS = 64
CLASSES = 10


@dataclass(frozen=True)
class Score:
    """Mean cross-entropy in nats, and the share of digits read correctly."""

    loss: float
    accuracy: float


class Network:
    """The parameters are weights and biases of the hidden layer, then of the output layer."""

    def __init__(self, hidden: int, rng: np.random.Generator) -> None:
        self.parameters: list[Array] = [
            rng.normal(0, np.sqrt(2 / PIXELS), (PIXELS, hidden)),
            np.zeros(hidden),
            rng.normal(0, np.sqrt(2 / hidden), (hidden, CLASSES)),
            np.zeros(CLASSES),
        ]
        self._velocity = [np.zeros_like(parameter) for parameter in self.parameters]

    def score(self, digits: Digits) -> Score:
        return _score(self._forward(digits)[1], digits)

    def gradient(self, digits: Digits) -> tuple[Score, list[Array]]:
        """The score, and the gradient of its loss with respect to each of `parameters`."""
        active, chances = self._forward(digits)
        error = chances.copy()
        error[np.arange(len(digits)), digits.labels] -= 1
        error /= len(digits)
        hidden_error = (error @ self.parameters[2].T) * (active > 0)
        return _score(chances, digits), [digits.images.T @ hidden_error, hidden_error.sum(0), active.T @ error, error.sum(0)]

    def learn(self, digits: Digits, learning_rate: float, momentum: float) -> Score:
        """One step of gradient descent on these digits; the score is the one before the step."""
        score, gradient = self.gradient(digits)
        for parameter, velocity, slope in zip(self.parameters, self._velocity, gradient, strict=True):
            velocity *= momentum
            velocity -= learning_rate * slope
            parameter += velocity
        return score

    def _forward(self, digits: Digits) -> tuple[Array, Array]:
        """(hidden activations, chance of each class)."""
        into, into_bias, out, out_bias = self.parameters
        active = np.maximum(digits.images @ into + into_bias, 0)
        logits = active @ out + out_bias
        weights = np.exp(logits - logits.max(1, keepdims=True))
        return active, weights / weights.sum(1, keepdims=True)


def _score(chances: Array, digits: Digits) -> Score:
    of_truth = chances[np.arange(len(digits)), digits.labels]
    # A chance that underflows to 0 would make the loss infinite.
    loss = -np.log(np.maximum(of_truth, np.finfo(np.float64).tiny)).mean()
    return Score(float(loss), float((chances.argmax(1) == digits.labels).mean()))
