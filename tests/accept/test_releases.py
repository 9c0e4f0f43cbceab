"""The GEMM of acceptance has sums beyond float16 and right results, and both kinds of overflow are found."""

import numpy as np
import onnxruntime

from toolchain.accept.releases import ROWS, integer_gemm, judge_sums


def test_the_exact_results_are_those_of_onnx_runtime_and_the_sums_exceed_float16():
    data, expected = integer_gemm()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"input_ids": np.arange(ROWS, dtype=np.int32)[:, None]})
    assert judge_sums(found, expected)[0]
    assert np.abs(expected).max() < 1000  # far from the limit of float16
    assert np.abs(expected).max() / (0.03125 * 3e-4) > 10 * 65504  # the sums before they are scaled


def test_infinite_and_saturated_sums_are_found():
    _, expected = integer_gemm()
    assert judge_sums(np.where(expected > 1, np.inf, expected), expected)[0] is False
    saturated = np.minimum(expected, 65504 * 0.03125 * 2e-4)
    assert judge_sums(saturated, expected)[0] is False
    assert judge_sums(expected * 1.001, expected)[0] is True
