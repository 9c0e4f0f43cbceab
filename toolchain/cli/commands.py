"""The table of commands. To add one: an entry here and its module in this package.

A command's module has `arguments(parser)`, which adds its arguments, and `run(args)`, which does its work. Only the
module of the command that was typed is imported, so that `toolchain --help` answers at once.
"""

import argparse
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Command:
    """One command: its line of help, and the names of its module and functions."""

    text: str
    module: str
    run: str = "run"
    arguments: str = "arguments"

    def load_run(self) -> Callable[[argparse.Namespace], int | None]:
        """Return the function that does the work. `power` returns the exit code of its own command, the others None."""
        function: Callable[[argparse.Namespace], int | None] = getattr(self._module(), self.run)
        return function

    def load_arguments(self) -> Callable[[argparse.ArgumentParser], None]:
        """Return the function that adds the arguments to a parser."""
        function: Callable[[argparse.ArgumentParser], None] = getattr(self._module(), self.arguments)
        return function

    def _module(self) -> Any:
        return importlib.import_module(f"toolchain.cli.{self.module}")


COMMANDS = {
    "demo": Command("run the whole path on the built-in model and data, offline", "demo"),
    "export": Command("export a checkpoint to ONNX, checked against PyTorch", "build", "export", "export_arguments"),
    "calibrate": Command(
        "measure calibration ranges; write calibration.json and a TensorRT cache",
        "build",
        "calibrate",
        "calibrate_arguments",
    ),
    "build": Command("build a bundle: graphs of one precision, and an engine where this machine can", "build"),
    "eval": Command("evaluate one backend on one task: accuracy, latency, throughput, memory, energy", "eval"),
    "predict": Command("label texts: from the command line, a file, or one a line on standard input", "predict"),
    "generate": Command("continue prompts with a language model, and time first token and steps apart", "generate"),
    "compare": Command("compare results row by row, with a verdict; or bundles by their energy", "compare"),
    "verify": Command("check that batch, padding and order change no logits, and parity with FP32", "verify"),
    "explain": Command("explain why a graph or an engine is not faster or not as accurate", "explain"),
    "tune": Command("find which GEMMs to exclude from INT8 to stay within a drop", "tune"),
    "shrink": Command("cut layers and feed-forward width, and train the rest by the original", "shrink"),
    "heal": Command("round the weights of INT8 graphs anew to give FP32's logits, if the gate fails", "heal"),
    "cascade": Command("put a cheap first stage before a bundle, which then runs only the unsure rows", "cascade"),
    "profile": Command("measure the time and the energy of each part of the model", "profile", "profile"),
    "estimate": Command("bound the time on a GPU by its data sheet: a limit, not a measurement", "estimate"),
    "accept": Command("run every check on a machine with a GPU and TensorRT; write one report", "accept"),
    "sweep": Command("build and evaluate a grid of models, tasks and options, resumably", "sweep"),
    "clocks": Command("find the GPU clock with the least energy a row", "clocks"),
    "report": Command("put results side by side: HTML, Markdown, CSV or JSON", "report"),
    "serve": Command(
        "serve a bundle over HTTP and gRPC, for Triton's clients too, with a page",
        "serve",
        "serve",
        "serve_arguments",
    ),
    "ship": Command("write what a server needs from a bundle", "ship", "ship"),
    "push": Command("upload a bundle with a model card to a hub, as a private repository", "push"),
    "power": Command(
        "measure the energy of any command; without one, of this machine until Ctrl-C",
        "power",
        "power",
        "power_arguments",
    ),
    "completion": Command("print the script that completes command lines in a shell", "completion"),
    "doctor": Command("list what this machine has and lacks, and how to get it", "doctor"),
}
