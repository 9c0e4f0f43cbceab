"""Load generators for HTTP services, each in a process of its own.

A closed loop has clients that send the next request when they have the response (wrk). An open loop sends requests at
random times, whether or not the earlier ones are answered.
"""

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
    """The figures of a load: requests per second, latencies, and the number of requests without status 200 (`lost`)."""

    per_s: float
    p50_ms: float
    p99_ms: float
    lost: int


def has_wrk() -> bool:
    """Return whether wrk is installed."""
    return shutil.which("wrk") is not None


def closed(url: str, bodies: Path, *, clients: int, seconds: float) -> Load:
    """Load `url` for `seconds` with clients that each wait for the response before the next request (a closed loop).

    `bodies` is a file with one request body per line; the clients send them in turn.
    """
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds:g}s", "--latency", "-s", str(SCRIPT), url, "--", str(bodies)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return Load(
        found["requests"] / found["duration_us"] * 1e6, found["p50_us"] / 1e3, found["p99_us"] / 1e3, found["lost"]
    )


def at_rate(url: str, bodies: Path, *, per_s: float, seconds: float) -> Load:
    """Load `url` for `seconds` with requests at random times, `per_s` per second on average (an open loop).

    Latency counts from the time at which a request was due. `bodies` is a file with one request body per line.
    """
    arguments = [sys.executable, __file__, url, str(bodies), str(per_s), str(seconds)]
    found = json.loads(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout)
    return Load(**found)


async def poisson(url: str, bodies: list[str], per_s: float, seconds: float) -> Load:
    """Send requests at the times of a Poisson process, in this process, and return the figures.

    Each request has a random one of `bodies`.
    """
    import aiohttp

    took_ms: list[float] = []
    lost = 0
    generator = random.Random(0)

    async def send(session: aiohttp.ClientSession, body: str, due: float) -> None:
        nonlocal lost
        try:
            async with session.post(url, data=body) as response:
                await response.read()
                lost += response.status != 200
        except aiohttp.ClientError:
            lost += 1
        took_ms.append((time.perf_counter() - due) * 1e3)

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers={"Content-Type": "application/json"}) as session:
        due = start = time.perf_counter()
        sent = []
        while due < start + seconds:
            due += generator.expovariate(per_s)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            sent.append(asyncio.create_task(send(session, generator.choice(bodies), due)))
        await asyncio.gather(*sent)
    p99 = float(np.percentile(took_ms, 99))
    return Load(len(took_ms) / (time.perf_counter() - start), statistics.median(took_ms), p99, lost)


if __name__ == "__main__":
    url, bodies, per_s, seconds = sys.argv[1:]
    lines = Path(bodies).read_text(encoding="utf-8").splitlines()
    print(json.dumps(vars(asyncio.run(poisson(url, lines, float(per_s), float(seconds))))))
