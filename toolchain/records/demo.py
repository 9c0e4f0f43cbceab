"""The output of `toolchain demo --json`."""

from typing import TypedDict

from toolchain.records.bundle import BuildRecord
from toolchain.records.result import Result


class DemoRecord(TypedDict):
    """What `toolchain demo` made of the built-in model: a bundle, three results and a report."""

    build: BuildRecord
    """The record of the build."""
    results: list[Result]
    """Results of PyTorch in FP32, of ONNX Runtime in FP32 and of ONNX Runtime in INT8, in this order."""
    report: str
    """Path of the report in Markdown."""
    page: str
    """Path of the report in HTML."""
