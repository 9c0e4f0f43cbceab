"""How much faster `toolchain serve --cache` answers repeated texts, and how much slower new ones.

Two services of one INT8 bundle, one with the cache and one without, get the same requests in interleaved rounds: new
texts, and then the same texts again. The model has the shapes of DistilBERT-base and random weights.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import aiohttp
from interleave import Ratio
from servers import INFER, ours
from table import show, verdicts
from targets import Target, judge
from workloads import WORKLOADS

NEW, TWICE = "time with the cache / without, new texts", "rows per second with the cache / without, each text twice"
TARGETS = (Target(TWICE, 1.9), Target(NEW, 1.02, most=True))

# Rows that the cache may hold: more than a run sends, so that none is evicted.
KEPT = "1000000"


async def send(url: str, texts: Iterable[str], clients: int) -> float:
    """Send a request for each text, from `clients` clients that each wait for the response; return the seconds."""
    left = iter(texts)

    async def client(session: aiohttp.ClientSession) -> None:
        for text in left:
            tensor = {"name": "TEXT", "datatype": "BYTES", "shape": [1, 1], "data": [text]}
            async with session.post(url, data=json.dumps({"inputs": [tensor]})) as response:
                response.raise_for_status()
                await response.read()

    async with aiohttp.ClientSession() as session:
        start = time.perf_counter()
        await asyncio.gather(*(client(session) for _ in range(clients)))
        return time.perf_counter() - start


def measure(bundle: Path, texts: list[str], *, rounds: int, clients: int) -> dict[str, Ratio]:
    """Return the ratios NEW and TWICE, with the median over `rounds` rounds. A warm-up round is not counted."""
    numbers, generator = itertools.count(), random.Random(0)
    new: list[float] = []
    twice: list[float] = []
    with contextlib.ExitStack() as stack:
        urls = [stack.enter_context(ours(bundle, *options)) + INFER for options in ((), ("--cache", KEPT))]
        for number in range(rounds + 1):
            fresh = [f"{next(numbers)} {text}" for text in texts]
            seconds = {}
            for url in generator.sample(urls, 2):
                seconds[url] = [asyncio.run(send(url, fresh, clients)) for _ in range(2)]
            (first, second), (kept_first, kept_second) = (seconds[url] for url in urls)
            if number:
                new.append(kept_first / first)
                twice.append((first + second) / (kept_first + kept_second))
    return {name: Ratio(statistics.median(one), min(one), max(one)) for name, one in ((NEW, new), (TWICE, twice))}


def main() -> None:
    """Measure the cache, and print both ratios and whether they meet their targets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="interleaved rounds (default 9)")
    parser.add_argument("--clients", type=int, default=8, metavar="N", help="concurrent clients (default 8)")
    parser.add_argument(
        "--texts", type=int, default=256, metavar="N", help="different texts in each round (default 256)"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle, texts = WORKLOADS["base"](Path(folder))
        found = measure(bundle, texts[: args.texts], rounds=args.rounds, clients=args.clients)
    for name, one in found.items():
        print(f"{name}: {one.median:.3f} ({one.low:.3f} to {one.high:.3f})")
    show(verdicts(judge({name: one.median for name, one in found.items()}, frozenset(), TARGETS)))


if __name__ == "__main__":
    main()
