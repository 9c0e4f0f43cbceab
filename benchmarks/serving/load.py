"""Load from another process: so many clients who ask again at once (wrk), or requests at random times at a rate."""

import asyncio
import json
import random
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SCRIPT = Path(__file__).with_name("load.lua")


@dataclass(frozen=True)
class Load:
    """What came of a load; `lost` are requests without an answer of 200."""

    per_s: float
    p50_ms: float
    p99_ms: float
    lost: int


def has_wrk() -> bool:
    """Whether wrk is installed."""
    return shutil.which("wrk") is not None


def closed(url: str, bodies: Path, *, clients: int, seconds: float) -> Load:
    """Ask with so many clients, each of which waits for its answer before it asks again."""
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds:g}s", "--latency", "-s", str(SCRIPT), url, "--", str(bodies)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return Load(
        found["requests"] / found["duration_us"] * 1e6, found["p50_us"] / 1e3, found["p99_us"] / 1e3, found["lost"]
    )


def at_rate(url: str, bodies: Path, *, per_s: float, seconds: float) -> Load:
    """Ask at random times, `per_s` a second, whatever the server does; a time counts from when it should have begun."""
    arguments = [sys.executable, __file__, url, str(bodies), str(per_s), str(seconds)]
    found = json.loads(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout)
    return Load(**found)


async def poisson(url: str, bodies: list[str], per_s: float, seconds: float) -> Load:
    """Ask by Poisson's process."""
    import aiohttp

    took_ms: list[float] = []
    lost = 0
    generator = random.Random(0)

    async def ask(session: aiohttp.ClientSession, body: str, due: float) -> None:
        nonlocal lost
        try:
            async with session.post(url, data=body) as answer:
                await answer.read()
                lost += answer.status != 200
        except aiohttp.ClientError:
            lost += 1
        took_ms.append((time.perf_counter() - due) * 1e3)

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers={"Content-Type": "application/json"}) as session:
        due = start = time.perf_counter()
        asked = []
        while due < start + seconds:
            due += generator.expovariate(per_s)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            asked.append(asyncio.create_task(ask(session, generator.choice(bodies), due)))
        await asyncio.gather(*asked)
    p99 = float(np.percentile(took_ms, 99))
    return Load(len(took_ms) / (time.perf_counter() - start), statistics.median(took_ms), p99, lost)


if __name__ == "__main__":
    url, bodies, per_s, seconds = sys.argv[1:]
    lines = Path(bodies).read_text(encoding="utf-8").splitlines()
    print(json.dumps(vars(asyncio.run(poisson(url, lines, float(per_s), float(seconds))))))
