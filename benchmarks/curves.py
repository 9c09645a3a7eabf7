"""Curves as training scripts record them, for comparing codecs: of the demo's training, and of what else a run records."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

FLOAT32 = "float32"  # born as float32: the lower 29 bits of the mantissa are 0


def curves(n: int) -> dict[str, NDArray[np.float64]]:
    """Name → n values. The first four are of networks that the demo trains here; its loop goes through the digits until there are n."""
    losses, accuracies, norms, times = trained(n)
    steps = np.arange(n)
    noise = np.random.default_rng(0).standard_normal(n)
    warm, total = n // 20, max(1, n - n // 20)
    cosine = 0.5 * 3e-4 * (1 + np.cos(np.pi * np.clip(steps - warm, 0, None) / total))
    falling = (0.1 + 2.2 * np.exp(-4.0 * steps / n) * (1.0 + 0.1 * noise)).astype(np.float32)
    busy = np.where((steps // 50) % 8 == 0, 20, 97) + np.round(1.5 * noise)
    return {
        "training loss, float64": losses,
        "training loss, born as float32": losses.astype(np.float32).astype(np.float64),
        "training accuracy": accuracies,
        "gradient norm, born as float32": norms.astype(np.float32).astype(np.float64),
        "times, s": times,
        "learning rate, warm-up and cosine": np.where(steps < warm, 3e-4 * steps / max(1, warm), cosine),
        "learning rate, in steps": 0.1 * 0.5 ** (steps // max(1, n // 6)),
        "generated loss, born as float32": falling.astype(np.float64),
        "GPU utilisation, %": np.clip(busy, 0, 100),
        "GPU memory, MiB": 8192.0 + 512.0 * np.minimum(steps // 100, 6),
        "GPU power, W, three decimals": np.round(60 + 2.8 * np.clip(busy, 0, 100) + noise, 3),
        "random float64": np.random.default_rng(0).random(n),
    }


def trained(n: int) -> tuple[NDArray[np.float64], ...]:
    """Losses, accuracies, norms of the gradient and times of n steps of the demo's training."""
    from aimlite.demo.digits import Digits, load, split
    from aimlite.demo.network import Network

    rng = np.random.default_rng(0)
    digits, _ = split(load())
    network, batch, rate = Network(16, rng), 64, 0.02
    losses, accuracies, norms, times = (np.empty(n) for _ in range(4))
    order = rng.permutation(len(digits))
    for step in range(n):
        start = step * batch % (len(digits) - batch)
        if start < batch:
            order = rng.permutation(len(digits))
        chosen: Digits = digits[order[start : start + batch]]
        score, gradient = network.gradient(chosen)
        for parameter, slope in zip(network.parameters, gradient, strict=True):
            parameter -= rate * slope
        losses[step], accuracies[step] = score.loss, score.accuracy
        norms[step] = np.sqrt(sum(float((slope**2).sum()) for slope in gradient))
        times[step] = time.time()
    return losses, accuracies, norms, times
