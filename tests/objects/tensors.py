"""Stand-ins for tensors: as much of torch's and TensorFlow's as objects look at. numpy refuses to look into them by itself."""

from __future__ import annotations

from typing import Any

import numpy as np


class TorchTensor:
    """On a device, with a gradient: only `.detach().cpu()` gives numbers."""

    def __init__(self, array: Any, *, detached: bool = False, on_cpu: bool = False, dtype: str | None = None) -> None:
        self.array, self.detached, self.on_cpu = np.asarray(array), detached, on_cpu
        self.dtype = dtype or f"torch.{self.array.dtype}"
        self.shape = self.array.shape

    def detach(self) -> TorchTensor:
        return TorchTensor(self.array, detached=True, on_cpu=self.on_cpu, dtype=self.dtype)

    def cpu(self) -> TorchTensor:
        return TorchTensor(self.array, detached=self.detached, on_cpu=True, dtype=self.dtype)

    def float(self) -> TorchTensor:
        return TorchTensor(self.array.astype(np.float32), detached=self.detached, on_cpu=self.on_cpu)

    def reshape(self, *shape: int) -> TorchTensor:
        return TorchTensor(self.array.reshape(*shape), detached=self.detached, on_cpu=self.on_cpu, dtype=self.dtype)

    def __getitem__(self, at: Any) -> TorchTensor:
        return TorchTensor(self.array[at], detached=self.detached, on_cpu=self.on_cpu, dtype=self.dtype)

    def __len__(self) -> int:
        return len(self.array)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray[Any, Any]:
        if not self.detached:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
        if not self.on_cpu or self.dtype == "torch.bfloat16":
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first.")
        return self.array if dtype is None else self.array.astype(dtype)


class EagerTensor:
    """TensorFlow's, and JAX's: an array interface and no more."""

    def __init__(self, array: Any) -> None:
        self.array = np.asarray(array)
        self.shape = self.array.shape

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray[Any, Any]:
        return self.array if dtype is None else self.array.astype(dtype)
