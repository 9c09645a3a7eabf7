"""How values are distributed: a histogram of at most 512 bins of equal width."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from aimlite.errors import CorruptionError
from aimlite.objects.given import as_array, demand_items, is_array, is_tensor, listed
from aimlite.objects.tracked import TrackedObject
from aimlite.storage.loading import load

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_BINS = 512
MAX_SAMPLES = 1 << 31
_PIECE = 1 << 18  # samples looked at in one go: no copy of all of them is ever made
_DTYPES = ("<u1", "<u2", "<u4", "<i8", "<f8")  # of weights, as stored


class Distribution(TrackedObject):
    """One distribution, of samples or as a histogram.

    samples: an array, tensor or sequence of real numbers, of any shape. Those that are not finite are in no bin; `non_finite` counts
    them. bin_count: 1 to 512, from the least sample to the greatest; of equal samples x from x - 0.5 to x + 0.5, of none from 0 to 1.
    hist: the weights of 1 to 512 bins of equal width over bin_range = (low, high), in place of samples.

    Raises TypeError, ValueError.
    """

    kind = "distributions"
    _fields: ClassVar[dict[str, type]] = {"bin_count": int, "low": float, "high": float, "dtype": str, "non_finite": int}

    def __init__(self, samples: Any = None, bin_count: int = 64, *, hist: Any = None, bin_range: Any = None) -> None:
        if (samples is None) == (hist is None):
            raise ValueError("a distribution is made of samples or of hist with bin_range, one of the two")
        if hist is None:
            if bin_range is not None:
                raise ValueError("bin_range goes with hist; the range of samples is theirs")
            weights, low, high, left_out = histogram(samples, _checked_bins(bin_count))
        else:
            weights, low, high, left_out = *_given_histogram(hist, bin_range), 0
        self._set_histogram(weights, low, high, left_out)

    @classmethod
    def from_samples(cls, samples: Any, bin_count: int = 64) -> Distribution:
        """As Distribution(samples, bin_count)."""
        return cls(samples, bin_count)

    @classmethod
    def from_histogram(cls, hist: Any, bin_range: Any) -> Distribution:
        """As Distribution(hist=hist, bin_range=bin_range)."""
        return cls(hist=hist, bin_range=bin_range)

    def _set_histogram(self, weights: NDArray[Any], low: float, high: float, left_out: int) -> None:
        load("numpy")
        import numpy as np

        dtype = "<f8"
        if weights.dtype.kind != "f":
            most = int(weights.max())
            dtype = next(name for name in _DTYPES if most <= np.iinfo(name).max)
        header = {"bin_count": len(weights), "low": low, "high": high, "dtype": dtype, "non_finite": left_out}
        self._set(header, weights.astype(dtype).tobytes())

    @property
    def bin_count(self) -> int:
        count: int = self._header["bin_count"]
        return count

    @property
    def range(self) -> list[float]:
        """[low, high]: where the first bin begins and the last ends."""
        return [self._header["low"], self._header["high"]]

    @property
    def non_finite(self) -> int:
        """How many samples were NaN or infinite, and are in no bin."""
        count: int = self._header["non_finite"]
        return count

    @property
    def weights(self) -> NDArray[Any]:
        """int64[bin_count] of samples, how many are in each bin; of a histogram as it was given, int64 or float64."""
        load("numpy")
        import numpy as np

        dtype, payload = self._header["dtype"], self._bytes()
        if dtype not in _DTYPES or not 1 <= self.bin_count <= MAX_BINS or len(payload) != self.bin_count * np.dtype(dtype).itemsize:
            raise CorruptionError(f"a distribution of {self.bin_count} bins has {len(payload)} bytes of {dtype!r:.20}")
        return np.frombuffer(payload, dtype).astype(np.float64 if dtype == "<f8" else np.int64)

    @property
    def ranges(self) -> NDArray[np.float64]:
        """The edges of the bins: float64[bin_count + 1], ascending. A sample equal to an edge is in the bin above, at the end below."""
        return edges(self._header["low"], self._header["high"], len(self.weights))  # which are as many as the header says

    def to_np_histogram(self) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """(weights, ranges), as numpy.histogram gives them."""
        return self.weights, self.ranges

    def json(self) -> dict[str, Any]:
        """{'bin_count', 'range', 'weights', 'non_finite'}."""
        return {"bin_count": self.bin_count, "range": self.range, "weights": self.weights.tolist(), "non_finite": self.non_finite}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Distribution):
            return NotImplemented
        return self.json() == other.json()

    __hash__ = None

    def __repr__(self) -> str:
        low, high = self.range
        left_out = f", {self.non_finite} not finite" if self.non_finite else ""
        return f"<Distribution of {self.bin_count} bins from {low:g} to {high:g}{left_out}>"


def histogram(samples: Any, bins: int) -> tuple[NDArray[np.int64], float, float, int]:
    """(weights, low, high, how many samples are not finite). Never copies more than a piece of the samples. Raises TypeError."""
    load("numpy")
    import numpy as np

    low, high, left_out = math.inf, -math.inf, 0
    flat = _flat(samples)
    for piece in _pieces(flat):
        finite = _finite(piece)
        left_out += len(piece) - len(finite)
        if len(finite):
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    weights = np.zeros(bins, np.int64)
    if low > high:
        return weights, 0.0, 1.0, left_out
    begin, end = spread(low, high, bins)
    scale = 0.25 if math.isinf(end - begin) else 1.0  # a range that is no float64
    with np.errstate(over="ignore"):  # as in `edges`
        for piece in _pieces(flat):
            finite = _finite(piece)
            weights += np.histogram(finite if scale == 1 else finite * scale, bins, (begin * scale, end * scale))[0]
    return weights, begin, end, left_out


def _finite(piece: NDArray[np.float64]) -> NDArray[np.float64]:
    load("numpy")
    import numpy as np

    if math.isfinite(piece.min()) and math.isfinite(piece.max()):  # NaN spreads to both: a third of what looking at each takes
        return piece
    return piece[np.isfinite(piece)]


def spread(low: float, high: float, bins: int) -> tuple[float, float]:
    """(low, high), set apart where all bins between would not differ."""
    if low == high:
        low, high = low - 0.5, high + 0.5
    least = bins * 2 * math.ulp(max(abs(low), abs(high)))  # each bin is as wide as two neighbouring float64 at least
    if high - low < least:
        low, high = low - least, high + least
    return max(low, -_GREATEST), min(high, _GREATEST)


_GREATEST = 1.7976931348623157e308


def edges(low: float, high: float, bins: int) -> NDArray[np.float64]:
    """float64[bins + 1], ascending, from low to high; also where high - low is beyond float64."""
    load("numpy")
    import numpy as np

    if not math.isinf(high - low):
        with np.errstate(over="ignore"):  # the last, which it puts right, may round to beyond the greatest float64
            return np.linspace(low, high, bins + 1)
    bounds = np.linspace(low / 4, high / 4, bins + 1) * 4
    bounds[0], bounds[-1] = low, high
    return bounds


def _flat(samples: Any) -> Any:
    """The samples in one dimension, on the device where they are, and not copied where they lie in a row."""
    load("numpy")
    import numpy as np

    demand_items(samples, MAX_SAMPLES, "a distribution")
    if is_tensor(samples):
        flat = samples.detach().reshape(-1)
        if "complex" in str(getattr(flat, "dtype", "")):
            raise TypeError(f"samples are real numbers, not {flat.dtype}")
        return flat
    if isinstance(samples, str | bytes) or not (is_array(samples) or hasattr(samples, "__iter__")):
        raise TypeError(f"samples are an array, a tensor or a sequence of numbers, not {type(samples).__name__} {samples!r:.100}")
    array = as_array(samples) if is_array(samples) else np.asarray(listed(samples, "samples"))
    if array.dtype.kind not in "fiub" and array.size:
        raise TypeError(f"samples are real numbers, not {array.dtype}")
    return array.reshape(-1) if array.flags.c_contiguous else array.flat


def _pieces(flat: Any) -> Iterator[NDArray[np.float64]]:
    load("numpy")
    import numpy as np

    for begin in range(0, len(flat), _PIECE):
        yield as_array(flat[begin : begin + _PIECE]).astype(np.float64)


def _checked_bins(bins: int) -> int:
    if isinstance(bins, bool) or not hasattr(bins, "__index__"):
        raise TypeError(f"bin_count is an integer from 1 to {MAX_BINS}, not {type(bins).__name__} {bins!r:.100}")
    if not 1 <= bins <= MAX_BINS:
        raise ValueError(f"bin_count is an integer from 1 to {MAX_BINS}, not {bins}")
    return int(bins)


def _given_histogram(hist: Any, bin_range: Any) -> tuple[NDArray[Any], float, float]:
    load("numpy")
    import numpy as np

    weights = as_array(hist) if is_array(hist) else np.asarray(hist)
    got = f"an array of shape {weights.shape} and {weights.dtype}"
    if weights.ndim != 1 or not 1 <= len(weights) <= MAX_BINS:
        raise ValueError(f"hist is a column of 1 to {MAX_BINS} weights, not {got}")
    if weights.dtype.kind not in "fiub":
        raise TypeError(f"hist is a column of numbers, not {got}")
    if weights.dtype.kind == "f":
        weights = weights.astype(np.float64)
        if not bool(np.isfinite(weights).all()):
            raise ValueError("hist has weights that are not finite")
    elif weights.dtype == np.uint64 and int(weights.max()) > 2**63 - 1:
        raise ValueError(f"hist has the weight {weights.max()}, which is beyond 64 bits with a sign")
    else:
        weights = weights.astype(np.int64)
    if weights.min() < 0:
        raise ValueError(f"hist has the weight {weights.min()}; weights are not negative")
    try:
        low, high = (float(bound) for bound in bin_range)
    except (TypeError, ValueError):
        raise TypeError(f"with hist goes bin_range=(low, high), two numbers, not {bin_range!r:.100}") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"bin_range is (low, high), finite and low < high, not ({low!r}, {high!r})")
    return weights, low, high
