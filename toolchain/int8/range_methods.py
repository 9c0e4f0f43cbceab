"""Calibration ranges: streaming histograms of |x|, and the range methods that choose the amax from a histogram.

The amax is the value that maps to 127 in symmetric int8; larger values are clipped. To add a range method, write a
function from a histogram to an amax here, and add its line to METHODS.
"""

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from toolchain.base.tensors import INT8_LEVELS, Range
from toolchain.recipe.tables import METHODS, imported

# Number of bins, as in TensorRT's entropy calibrator: 16 for each of int8's 128 levels of |x|.
BINS = 2048

# The fewest bins that a range may keep: one for each level of |x| in int8, zero included.
FIRST_CANDIDATE = 128

# The default of the method `percentile`: one value in 10,000 is clipped.
DEFAULT_PERCENTILE = 99.99

# Values up to this |x| count as zero: for a far smaller amax, float32 cannot hold the inverse of the bin width.
SMALLEST = 1e-30


class Histogram:
    """A histogram of |x| of one tensor over any number of batches, in 2048 bins of equal width.

    When a value is larger than the last bin, the bin width doubles and neighbouring bins merge. So memory stays
    constant, and one pass over the data is enough.
    """

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(BINS, np.int64)
        self.width = 0.0
        self.low, self.high = np.inf, -np.inf

    def add(self, values: NDArray[np.float32]) -> None:
        """Count every element of `values`, an array of any shape.

        Raises:
            ValueError: a value is infinite or NaN.
        """
        flat = values.reshape(-1)
        low, high = float(flat.min()), float(flat.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        amax = max(-low, high)
        if not np.isfinite(amax):
            raise ValueError("values are not finite")
        if amax > SMALLEST:
            self._widen(amax)
            bins = np.abs(flat) * np.float32(1 / self.width)
            index = np.minimum(bins.astype(np.int32), BINS - 1)
            self.counts += np.bincount(index, minlength=BINS)
        else:
            self.counts[0] += flat.size

    def _widen(self, amax: float) -> None:
        """Double the bin width until the bins cover `amax`, and merge the counts."""
        if self.width == 0:
            self.width = amax / BINS
        while amax > self.width * BINS:
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([merged, np.zeros(BINS // 2, np.int64)])
            self.width *= 2

    @property
    def amax(self) -> float:
        """The largest |x| that was added."""
        return max(-self.low, self.high)

    def range(self, method: str) -> Range:
        """Return the range that the range method `method` chooses; amax is 1 if all values are 0.

        Raises:
            KeyError: METHODS has no such method.
        """
        amax = find_method(method)(self) if self.amax > SMALLEST else 1.0
        low, high = np.clip([self.low, self.high], -amax, amax)
        return Range(amax, float(low), float(high))


# A range method: it returns the amax for a histogram.
Method = Callable[[Histogram], float]


def minmax(histogram: Histogram) -> float:
    """Return the largest |x|, so that nothing is clipped."""
    return histogram.amax


def percentile(histogram: Histogram, percent: float = DEFAULT_PERCENTILE) -> float:
    """Return the percentile `percent` of |x|, so that larger values are clipped."""
    cumulative = np.cumsum(histogram.counts)
    index = int(np.searchsorted(cumulative, cumulative[-1] * percent / 100))
    return min((index + 1) * histogram.width, histogram.amax)


def mse(histogram: Histogram) -> float:
    """Return the amax with the smallest mean squared error of |x| from rounding to 127 levels and from clipping.

    All values in a bin count as its centre, so the error of the smallest values is approximate.
    """
    last = int(np.flatnonzero(histogram.counts).max()) + 1
    centres = (np.arange(last) + 0.5) * histogram.width
    weights = histogram.counts[:last].astype(np.float64)
    candidates = np.arange(min(FIRST_CANDIDATE, last), last + 1) * histogram.width
    errors = np.empty(len(candidates))
    for position, amax in enumerate(candidates):
        scale = amax / INT8_LEVELS
        rounded = np.minimum(np.rint(centres / scale), INT8_LEVELS) * scale
        errors[position] = weights @ (centres - rounded) ** 2
    return float(min(candidates[errors.argmin()], histogram.amax))


def entropy(histogram: Histogram) -> float:
    """Return the amax with the smallest KL(P || Q) between |x| (P) and its quantization to 128 levels (Q).

    This is the method of TensorRT's entropy calibrator (Migacz, "8-bit Inference with TensorRT", GTC 2017). For each
    number of kept bins, P is the kept histogram with the clipped counts added to its last bin, and Q is the kept
    histogram without them, averaged over the non-empty bins of each of 128 levels. The first bin gets the count of the
    second, because zero is exact at every scale and its count would hide the others.
    """
    counts = histogram.counts.astype(np.float64)
    counts[0] = counts[1]
    last = int(np.flatnonzero(histogram.counts).max()) + 1
    if last <= FIRST_CANDIDATE:
        return histogram.amax
    kept = np.arange(FIRST_CANDIDATE, last + 1)
    best = int(kept[_divergences(counts, kept).argmin()])
    return min(best * histogram.width, histogram.amax)


def _divergences(counts: NDArray[np.float64], kept: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return KL(P || Q) of `entropy` for each number of kept bins.

    Prefix sums reduce the work to 128 operations for each number. If p and q are the unnormalised P and Q, and N and M
    their sums: KL = (sum p log p - sum p log q) / N + log(M / N).
    """
    total = np.concatenate([[0.0], np.cumsum(counts)])
    filled = np.concatenate([[0.0], np.cumsum(counts > 0)])
    own = np.concatenate([[0.0], np.cumsum(_xlogx(counts))])
    edges = -(-kept[:, None] * np.arange(FIRST_CANDIDATE + 1) // FIRST_CANDIDATE)
    level_sum, level_filled = np.diff(total[edges]), np.diff(filled[edges])
    mean = np.divide(level_sum, level_filled, out=np.ones_like(level_sum), where=level_filled > 0)
    cross = (level_sum * np.log(np.where(mean > 0, mean, 1))).sum(axis=1)

    last = counts[kept - 1]
    clipped = total[-1] - total[kept]
    everything, inside = total[-1], total[kept]
    p_log_p = own[kept] - _xlogx(last) + _xlogx(last + clipped)
    p_log_q = cross + clipped * np.log(np.where(last > 0, mean[:, -1], 1))
    with np.errstate(divide="ignore"):
        divergence = (p_log_p - p_log_q) / everything + np.log(inside / everything)
    # P has the clipped counts in its last kept bin. If that bin is empty in Q, the divergence is infinite.
    divergence[(clipped > 0) & (last == 0)] = np.inf
    return np.asarray(divergence)


def _xlogx(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(values * np.log(np.where(values > 0, values, 1)))


def find_method(name: str) -> Method:
    """Return the range method called `name`, such as `mse`; `percentile-99.9` is `percentile` at 99.9.

    Raises:
        KeyError: METHODS has no such method.
    """
    if name.startswith("percentile-"):
        return functools.partial(percentile, percent=float(name.removeprefix("percentile-")))
    method: Method = imported(METHODS[name])
    return method
