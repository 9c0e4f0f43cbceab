"""A contender of `make bench`: INT8 on ONNX Runtime, as an earlier version of this project builds and runs it.

The earlier version runs in a process of its own, which imports the packages of an earlier checkout. It builds its own
bundle from the same recipe and runs its own contender "ort INT8". Texts and logits pass between the two processes as
lines of JSON, and the time for this is part of the earlier version's time.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # the process of the earlier version imports its own
    from toolchain.data.rows import Text
    from toolchain.recipe import Recipe

NAME = "ort INT8"
# Fields of the recipe that the earlier version gets. For all other fields it uses its own defaults.
FIELDS = ("model", "task", "data", "max_length", "calib_method")
Answer = tuple[NDArray[np.float32], float | None]


@contextmanager
def earlier(checkout: Path, recipe: "Recipe", folder: Path) -> "Iterator[Callable[[list[Text]], Answer]]":
    """Start the earlier version in `checkout`, and yield a function that runs it on texts.

    The function returns float32 logits [rows, classes], and the seconds spent within ONNX Runtime. The earlier version
    builds its bundle in `folder`.

    Raises:
        RuntimeError: the process of the earlier version ended without returning logits; its own message is on stderr.
    """
    chosen = {name: getattr(recipe, name) for name in FIELDS}
    paths = os.pathsep.join(map(str, (checkout.resolve(), checkout.resolve() / "benchmarks")))
    process = subprocess.Popen(
        [sys.executable, __file__, json.dumps(chosen), folder],
        env={**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    sent, received = process.stdin, process.stdout

    def ask(texts: "list[Text]") -> Answer:
        sent.write(json.dumps(texts) + "\n")
        sent.flush()
        line = received.readline()
        if not line:
            raise RuntimeError(f"{checkout}: its process ended with exit code {process.wait()}. Its message is above.")
        found = json.loads(line)
        return np.array(found["logits"], np.float32), found["runtime_s"]

    try:
        yield ask
    finally:
        sent.close()
        received.close()
        process.wait()


def answer(chosen: dict[str, str | int | None], folder: Path, texts: TextIO, logits: TextIO) -> None:
    """Build the bundle, and for each line of `texts` write one line to `logits`. Runs in the earlier version's process.

    A line of `texts` is a JSON list of rows. The line that is written has the logits of these rows, and the seconds
    within the runtime.
    """
    from contenders import CONTENDERS
    from workload import make

    from toolchain.recipe import Recipe

    with CONTENDERS[NAME](make(Recipe(**chosen), folder)) as once:  # type: ignore[arg-type]
        for line in texts:
            found = once([tuple(text) for text in json.loads(line)])
            json.dump({"logits": found.logits.tolist(), "runtime_s": found.runtime_s}, logits)
            logits.write("\n")
            logits.flush()


if __name__ == "__main__":
    # Standard output carries only the logits. Everything else that is printed goes to stderr.
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    answer(json.loads(sys.argv[1]), Path(sys.argv[2]), sys.stdin, output)
