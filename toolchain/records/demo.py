"""The output of `toolchain demo --json`."""

from typing import TypedDict

from toolchain.records.bundle import BuildRecord
from toolchain.records.result import Result


class DemoRecord(TypedDict):
    """A build, three evaluations and a report of the built-in model."""

    build: BuildRecord
    """The record of the build."""
    results: list[Result]
    """PyTorch in FP32, then ONNX Runtime in FP32 and in INT8."""
    report: str
    """Path of the report in Markdown."""
    page: str
    """Path of the report in HTML."""
