"""Which products to keep out of INT8: few, cheap in work, and enough to stay within a drop.

Cheap first: one pass gives every product's noise at its own output. Then the logits with one product alone in INT8,
for the noisiest. Then the smallest set in order of effect for the work: doubled until it is enough, halved down to
the least, and every member that is not needed let go. All on train rows that calibration did not see (held.py);
whether the result really stays within the drop is for the gate to say, on validation rows.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from toolchain.int8.holdout import Holdout
from toolchain.int8.quantize import TENSORRT, quantize
from toolchain.int8.sensitivity import Product, measure_noise
from toolchain.progress import bar
from toolchain.runtimes.distance import Distance
from toolchain.tensors import Ranges

NOISE_ROWS = 64
EXACT_SHARE = 0.5
"""Of the budget, the part spent on products one by one; the rest is for sets of them."""

Memory = dict[str, Any]
"""Every evaluation by what it evaluated, as JSON: what a stopped search goes on from."""


@dataclass(frozen=True)
class Set:
    """Products kept out of INT8, how far the logits then are from FP32's, and the drop to expect, in points."""

    keep: tuple[str, ...]
    macs: float
    distance: Distance
    expected_drop_points: float

    def to_json(self) -> dict[str, Any]:
        """Return the record that is kept."""
        return {
            "keep": list(self.keep),
            "macs": self.macs,
            "expected_drop_points": self.expected_drop_points,
            **self.distance.to_json(),
        }


@dataclass(frozen=True)
class Tuned:
    """The set that was found, whether it is enough, and what was measured on the way."""

    best: Set
    enough: bool
    products: list[Product]
    sets: list[Set]
    evaluations: int


@dataclass
class Search:
    """One search. `load` gives a new copy of the float graph that `ranges` were made from.

    `memory` holds earlier evaluations and gets new ones; `save` is called after each.
    """

    load: Callable[[], ir.Model]
    ranges: Ranges
    holdout: Holdout
    budget: int
    memory: Memory
    save: Callable[[], None] = lambda: None
    macs: dict[str, float] = field(default_factory=dict, init=False)
    asked: set[str] = field(default_factory=set, init=False)

    def run(self, *, max_drop: float, most_macs: float = 1.0) -> Tuned:
        """Return the smallest set that is enough, of at most `most_macs` of the work; else the nearest to FP32."""
        with bar(self.budget, "tuning") as self._advance:
            products = self._noise()
            self.macs = {product.name: product.macs for product in products}
            tried = [self._set(())]
            noisiest = sorted(products, key=lambda product: product.snr_db)
            for product in noisiest[: int(self.budget * EXACT_SHARE)]:
                alone = self._distance(f"alone: {product.name}", [name for name in self.macs if name != product.name])
                found = replace(product, effect=alone.rank, drop_points=self.holdout.expected_drop(alone))
                products[products.index(product)] = found
            if tried[0].expected_drop_points > max_drop:
                tried += self._grow(_within(_ordered(products), self.macs, most_macs), max_drop)
        passing = [one for one in tried if one.expected_drop_points <= max_drop]
        best = min(passing, key=lambda one: (len(one.keep), one.macs)) if passing else min(tried, key=_rank)
        return Tuned(best, bool(passing), products, tried, len(self.asked))

    def _grow(self, names: list[str], max_drop: float) -> Iterator[Set]:
        """Yield the sets that are tried: prefixes of `names`, doubled, then halved down, then thinned out."""

        def enough(one: Set) -> bool:
            return one.expected_drop_points <= max_drop

        if not names:
            return
        size, low = 1, 0
        while not self._spent():
            size = min(size, len(names))
            found = self._set(names[:size])
            yield found
            if enough(found) or size == len(names):
                break
            low, size = size, 2 * size
        else:
            return
        if not enough(found):
            return
        while size - low > 1 and not self._spent():
            middle = (low + size) // 2
            found = self._set(names[:middle])
            yield found
            low, size = (low, middle) if enough(found) else (middle, size)
        kept = names[:size]
        for name in sorted(kept, key=lambda name: -self.macs[name]):
            if len(kept) > 1 and not self._spent():
                found = self._set([one for one in kept if one != name])
                yield found
                kept = list(found.keep) if enough(found) else kept

    def _spent(self) -> bool:
        # What was known from before counts too, so that a search that was stopped goes on the same way.
        return len(self.asked) >= self.budget

    def _noise(self) -> list[Product]:
        if "noise" not in self.memory:
            rows = self.holdout.tokens.take(np.arange(min(NOISE_ROWS, len(self.holdout.tokens))))
            self.memory["noise"] = [one.to_json() for one in measure_noise(self.load, self.ranges, rows)]
            self.memory.setdefault("evaluations", {})
            self.save()
        return [Product(**one) for one in self.memory["noise"]]

    def _set(self, keep: Iterable[str]) -> Set:
        kept = sorted(keep)
        found = self._distance("kept: " + " ".join(kept), kept)
        macs = sum(self.macs[name] for name in kept)
        return Set(tuple(kept), macs, found, self.holdout.expected_drop(found))

    def _distance(self, key: str, keep: Iterable[str]) -> Distance:
        done = self.memory["evaluations"]
        if key not in done:
            model = self.load()
            quantize(model, self.ranges, TENSORRT, keep=list(keep))
            done[key] = self.holdout.distance(model).to_json()
            self.save()
        self.asked.add(key)
        self._advance()
        return Distance(**done[key])


def _ordered(products: list[Product]) -> list[str]:
    """Return names, most effect for the work first; those whose effect was not measured last, noisiest first."""
    measured = [product for product in products if product.effect is not None]
    others = [product for product in products if product.effect is None]
    measured.sort(key=lambda product: -(float(product.effect or 0) ** 2) / product.macs)
    return [product.name for product in (*measured, *sorted(others, key=lambda product: product.snr_db))]


def _rank(one: Set) -> float:
    return one.distance.rank


def _within(names: list[str], macs: dict[str, float], most: float) -> list[str]:
    """Return the names, in order, that fit together into `most` of the work."""
    kept, total = [], 0.0
    for name in names:
        if total + macs[name] <= most:
            kept.append(name)
            total += macs[name]
    return kept
