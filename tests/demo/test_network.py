from __future__ import annotations

import numpy as np
import pytest

from aimlite.demo.digits import load
from aimlite.demo.network import Network


@pytest.mark.parametrize("which", range(4), ids=["hidden weights", "hidden biases", "output weights", "output biases"])
def test_gradient_is_the_slope_of_the_loss(which: int) -> None:
    rng = np.random.default_rng(1)
    network, digits, h = Network(5, rng), load()[:20], 1e-6
    parameter = network.parameters[which].reshape(-1)
    slopes = network.gradient(digits)[1][which].reshape(-1)
    for i in rng.choice(parameter.size, min(parameter.size, 25), replace=False):
        at = parameter[i]
        parameter[i] = at + h
        above = network.score(digits).loss
        parameter[i] = at - h
        below = network.score(digits).loss
        parameter[i] = at
        assert slopes[i] == pytest.approx((above - below) / (2 * h), rel=1e-4, abs=1e-8)


def test_it_learns() -> None:
    network, digits = Network(16, np.random.default_rng(1)), load()[:200]
    before = network.score(digits)
    assert before.loss == pytest.approx(np.log(10), abs=0.7)
    for _ in range(100):
        network.learn(digits, learning_rate=0.1, momentum=0.9)
    after = network.score(digits)
    assert after.accuracy > 0.95
    assert after.loss < before.loss / 5
