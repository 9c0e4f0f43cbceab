"""An earlier version of this project as a contender, INT8 on ONNX Runtime.

It runs in a process that imports the packages of an earlier checkout. That version builds its own bundle from the same
recipe and runs its own contender "ort INT8". Texts and logits cross two pipes as lines of JSON, and the time for this
counts as the earlier version's.
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
# What the earlier version is told of the recipe; it has its own defaults for all else.
FIELDS = ("model", "task", "data", "max_length", "calib_method")
Answer = tuple[NDArray[np.float32], float | None]


@contextmanager
def earlier(checkout: Path, recipe: "Recipe", folder: Path) -> "Iterator[Callable[[list[Text]], Answer]]":
    """Yield a function from texts to float32 logits [rows, classes] and the seconds within the runtime.

    Raises:
        RuntimeError: the earlier version ends before it has answered; its own message is on stderr.
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
            raise RuntimeError(f"{checkout}: the earlier version ended with exit code {process.wait()}.")
        found = json.loads(line)
        return np.array(found["logits"], np.float32), found["runtime_s"]

    try:
        yield ask
    finally:
        sent.close()
        received.close()
        process.wait()


def answer(chosen: dict[str, str | int | None], folder: Path, texts: TextIO, logits: TextIO) -> None:
    """Build the bundle, then answer each line of texts with a line of logits, in the earlier version's process."""
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
    # Standard output carries the logits alone: what else is printed there goes to stderr.
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    answer(json.loads(sys.argv[1]), Path(sys.argv[2]), sys.stdin, output)
