"""The four models of a repository: an ensemble, and its tokenizer, classifier and decoder.

A client sends TEXT (and TEXT_PAIR) to the ensemble. The tokenizer pads to length buckets, because Triton merges only
requests of one shape; the classifier is the engine alone, so that its queue and its batches are the engine's; the
decoder turns logits into a label.
"""

from collections.abc import Sequence
from typing import Any

from toolchain.ship.config import Values
from toolchain.ship.engine import Engine
from toolchain.ship.options import Options
from toolchain.ship.signature import Tensor, Tensors, to_json

TEXT = Tensor("TYPE_STRING", (1,))

PROVENANCE = "provenance.json"
"""In each version of the ensemble: what it was made from."""


def names(name: str) -> dict[str, str]:
    """Return the role of each model -> its name, the ensemble last."""
    return {role: f"{name}_{role}" for role in ("tokenizer", "classifier", "decoder")} | {"ensemble": name}


def configurations(
    name: str, texts: Sequence[str], classes: int, engine: Engine, options: Options
) -> dict[str, Values]:
    """Return role -> configuration of the four models."""
    logits, label = Tensor("TYPE_FP32", (classes,)), Tensor("TYPE_STRING", (1,))
    inputs = {input_: Tensor(tensor.type, (-1,)) for input_, tensor in engine.inputs.items()}
    takes: Tensors = dict.fromkeys(texts, TEXT)
    gives: Tensors = {"LABEL": label, "SCORE": logits, "LOGITS": logits}
    called = names(name)

    def model(role: str, takes: Tensors, gives: Tensors, **more: Any) -> Values:
        return {
            "name": called[role],
            "max_batch_size": engine.max_batch,
            "input": to_json(takes),
            "output": to_json(gives),
            # The four belong together: naming the version keeps an older one from being half of it.
            "version_policy": {"specific": {"versions": [options.version]}},
            **more,
        }

    on_cpu: Values = {"backend": "python", "instance_group": [{"count": 1, "kind": "KIND_CPU"}]}
    cached: Values = {"response_cache": {"enable": True}} if options.response_cache else {}
    return {
        "tokenizer": model("tokenizer", takes, inputs, dynamic_batching=_batching(options), **on_cpu),
        "classifier": model("classifier", inputs, {"logits": logits}, **_classifier(engine, options), **cached),
        "decoder": model("decoder", {"logits": logits}, gives, dynamic_batching=_batching(options), **on_cpu),
        "ensemble": model(
            "ensemble",
            takes,
            gives,
            platform="ensemble",
            ensemble_scheduling={"step": _steps(called, takes, inputs, gives, options.version)},
        ),
    }


def _batching(options: Options) -> Values:
    """Return a batcher that sends at once what has come, and refuses what would wait too long."""
    return {
        "default_queue_policy": {
            "max_queue_size": options.queue,
            "timeout_action": "REJECT",
            "default_timeout_microseconds": 1000 * options.timeout_ms,
            "allow_timeout_override": True,
        }
    }


def _classifier(engine: Engine, options: Options) -> Values:
    batching = _batching(options)
    if options.delay_us:
        batching["max_queue_delay_microseconds"] = options.delay_us
    if tuned := sorted({one.batch[1] for one in engine.profiles if one.batch[1] < engine.max_batch}):
        batching["preferred_batch_size"] = tuned  # where the plan's kernels were chosen for so many rows
    (group,) = engine.config["instance_group"]
    made = engine.config | {
        "dynamic_batching": batching,
        "instance_group": [{"count": options.instances, **group}],
        "model_warmup": _warmup(engine),
    }
    return made | ({"optimization": {"cuda": _cuda_graphs(engine)}} if options.cuda_graphs else {})


def _warmup(engine: Engine) -> list[Values]:
    """Return one row of each length, and the largest batch, so that no request is the first to ask for its memory.

    Ids are 0, which every vocabulary has; random ones would be out of it.
    """
    shapes = [(1, length) for length in engine.buckets]
    if engine.max_batch > 1:
        shapes.append((engine.max_batch, engine.buckets[-1]))
    return [
        {
            "name": f"{rows} of {length}",
            "batch_size": rows,
            "inputs": {
                name: {"data_type": tensor.type, "dims": [length], "zero_data": True}
                for name, tensor in engine.inputs.items()
            },
        }
        for rows, length in shapes
    ]


def _cuda_graphs(engine: Engine) -> Values:
    """Return a graph for every power of two of rows and every length; no lower bound.

    With a lower bound Triton would run smaller batches in a larger graph, its inputs filled with whatever is there.
    """
    rows = [1 << power for power in range(engine.max_batch.bit_length())]
    specs = [
        {"batch_size": count, "input": {name: {"dim": [length]} for name in engine.inputs}}
        for length in engine.buckets
        for count in rows
    ]
    return {"graphs": True, "graph_spec": specs}


def _steps(called: dict[str, str], takes: Tensors, inputs: Tensors, gives: Tensors, version: int) -> list[Values]:
    def step(role: str, given: dict[str, str], found: dict[str, str]) -> Values:
        return {"model_name": called[role], "model_version": version, "input_map": given, "output_map": found}

    same = {name: name for name in inputs}
    return [
        step("tokenizer", {name: name for name in takes}, same),
        # LOGITS is not what the decoder takes: of an output that is also an input Triton drops the maker when a request
        # does not ask for it (server issue 7482).
        step("classifier", same, {"logits": "logits"}),
        step("decoder", {"logits": "logits"}, {name: name for name in gives}),
    ]
