"""The time of calibration, as a ratio to the time of a plain forward pass over the same rows."""

from collections.abc import Callable

from contenders import BUDGET
from interleave import interleaved, ratio
from workload import Workload

from toolchain import graph
from toolchain.checkpoint.tokenize import budget_batches, equal_length_batches
from toolchain.int8.calibrate import MAX_SLOTS, calibrate
from toolchain.runtimes import open_runtime

ROWS = 512


def calibration_cost(workload: Workload, *, rounds: int) -> dict[str, float]:
    """Return the time to calibrate ROWS train rows by entropy, as a ratio to that of a forward pass in ONNX Runtime.

    There are two ratios. The forward pass runs the same rows: for the first ratio in calibration's own batches (rows of
    equal length), for the second in the evaluator's batches. A ratio is the median over `rounds` interleaved rounds.
    """
    model = workload.bundle / "model.onnx"
    tokens = workload.resolved.encode(workload.rows("train").sample(ROWS, seed=0).texts)
    own = list(equal_length_batches(tokens.lengths, max_slots=MAX_SLOTS))
    budgeted = list(budget_batches(tokens.lengths, max_slots=BUDGET))
    with open_runtime("ort", model, device="cpu") as infer:
        contenders: dict[str, Callable[[], object]] = {
            "calibrate": lambda: calibrate(graph.load(model), tokens, method="entropy"),
            "same": lambda: [infer(tokens.batch(batch)) for batch in own],
            "budget": lambda: [infer(tokens.batch(batch)) for batch in budgeted],
        }
        calls = interleaved(contenders, rounds)
    what = f"calibrate {ROWS} rows (entropy) / forward pass"
    return {
        f"{what}, same batches, time": ratio(calls["calibrate"], calls["same"]).median,
        f"{what}, time": ratio(calls["calibrate"], calls["budget"]).median,
    }
