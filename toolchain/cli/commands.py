"""The table of commands. To add a command, add its entry here and its module to this package.

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
    """One command: its line on the help page, and the names of its module and functions."""

    text: str
    module: str
    run: str = "run"
    arguments: str = "arguments"

    def load_run(self) -> Callable[[argparse.Namespace], int | None]:
        """Return the function that runs the command. It returns the exit code; None means 0."""
        function: Callable[[argparse.Namespace], int | None] = getattr(self._module(), self.run)
        return function

    def load_arguments(self) -> Callable[[argparse.ArgumentParser], None]:
        """Return the function that adds the arguments of the command to a parser."""
        function: Callable[[argparse.ArgumentParser], None] = getattr(self._module(), self.arguments)
        return function

    def _module(self) -> Any:
        return importlib.import_module(f"toolchain.cli.{self.module}")


COMMANDS = {
    "demo": Command("build, evaluate and report the built-in model on built-in data, offline", "demo"),
    "export": Command("export a checkpoint to ONNX, checked against PyTorch", "build", "export", "export_arguments"),
    "calibrate": Command(
        "measure calibration ranges; write calibration.json and a TensorRT cache",
        "build",
        "calibrate",
        "calibrate_arguments",
    ),
    "build": Command("build a bundle: graphs of one precision and, if possible here, an engine", "build"),
    "eval": Command("evaluate one backend on one task: accuracy, latency, throughput, memory, energy", "eval"),
    "predict": Command("label texts from the command line, a file or standard input (one text per line)", "predict"),
    "generate": Command("generate text with a language model; time the first token and later steps", "generate"),
    "compare": Command("compare results row by row, with a verdict; or bundles by their energy", "compare"),
    "verify": Command("check that batch, padding and order change no logits, and compare with FP32", "verify"),
    "explain": Command("explain why a graph or an engine is slower or less accurate than expected", "explain"),
    "tune": Command("find which GEMMs to exclude from INT8 to stay within an accuracy drop", "tune"),
    "shrink": Command("cut layers and feed-forward width, and distil the original into the result", "shrink"),
    "heal": Command("if the gate fails, round INT8 weights again to bring logits closer to FP32's", "heal"),
    "cascade": Command("add a cheap first stage; the bundle runs only rows that this stage is unsure of", "cascade"),
    "profile": Command("measure the time and the energy of each part of the model", "profile", "profile"),
    "estimate": Command("compute a lower bound of the time on a GPU from its data sheet", "estimate"),
    "accept": Command("run every check on a machine with a GPU and TensorRT; write one report", "accept"),
    "sweep": Command("build and evaluate a grid of models, tasks and options; it can be resumed", "sweep"),
    "clocks": Command("find the GPU clock with the least energy per row", "clocks"),
    "report": Command("put results side by side: HTML, Markdown, CSV or JSON", "report"),
    "serve": Command(
        "serve a bundle over HTTP and gRPC, also to Triton's clients, with a web page",
        "serve",
        "serve",
        "serve_arguments",
    ),
    "ship": Command("write the files with which a server serves a bundle", "ship", "ship"),
    "push": Command("upload a bundle with a model card to a hub, as a private repository", "push"),
    "power": Command(
        "measure the energy of any command; without one, of this machine until Ctrl-C",
        "power",
        "power",
        "power_arguments",
    ),
    "completion": Command("print the script with which a shell completes command lines", "completion"),
    "doctor": Command("list what this machine has and lacks, and how to install what is missing", "doctor"),
}
