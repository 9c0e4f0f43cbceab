"""Makes the configurations of a repository's models: an ensemble of a tokenizer, a classifier and a decoder.

A client sends TEXT (and TEXT_PAIR) to the ensemble. The tokenizer pads to length buckets, because Triton merges only
requests of equal shape. The classifier contains only the engine, so that its queue and batches are the engine's. The
decoder turns logits into a label. In a cascade, a Python model takes the place of the classifier in the ensemble: it
runs the first stage, and sends the rows of which the first stage is not sure to the classifier. The name of a model is
that of the ensemble and a role, such as NAME_tokenizer.
"""

import dataclasses
from collections.abc import Sequence

from toolchain.heads.contract import Head
from toolchain.ship.cascade import First
from toolchain.ship.config import ConfigJson
from toolchain.ship.engine import Engine
from toolchain.ship.options import Options
from toolchain.ship.signature import Tensor, Tensors, to_json

TEXT = Tensor("TYPE_STRING", (1,))

# Output of the tokenizer, in addition to the tokens: whether the text was truncated.
CUT = "truncated"

# Output of the tokenizer that the decoder of a token classifier reads: word number, start and end of each token.
SPANS = "spans"

# Output of a cascade: the stage that classified a row.
STAGE = "STAGE"

# Instances of a cascade's Python model. While one waits for the second stage, the others answer rows of which the first
# stage is sure.
CASCADES = 4

# Roles of the models other than the ensemble. Only a cascade has the last two.
ROLES = ("tokenizer", "classifier", "decoder", "first", "cascade")

# File in each version folder of the ensemble that records its origin.
PROVENANCE = "provenance.json"


def names(name: str) -> dict[str, str]:
    """Return the names of the models by role, with the ensemble last."""
    return {role: f"{name}_{role}" for role in ROLES} | {"ensemble": name}


def configurations(
    name: str, texts: Sequence[str], head: Head, engine: Engine, options: Options, first: First | None = None
) -> dict[str, ConfigJson]:
    """Return the configurations of the models by role, with the ensemble last.

    `texts` are the names of the text inputs. `first` is the first stage of a cascade; None for any other bundle.
    """
    logits = Tensor("TYPE_FP32", tuple(-1 if size is None else size for size in head.row))
    tokens = {token: Tensor(tensor.type, (-1,)) for token, tensor in engine.inputs.items()}
    inputs: Tensors = dict.fromkeys(texts, TEXT)
    outputs = {name: Tensor("TYPE_FP32", (width,)) if width else TEXT for name, width in head.outputs.items()}
    # Whether a text was longer than the model's maximum length. The ensemble passes this from the tokenizer to its own
    # output, because the classifier does not take it.
    cut = Tensor("TYPE_BOOL", (1,))
    # The offsets of the tokens in a text bypass the classifier as well: the decoder needs them for entities.
    spans: Tensors = {SPANS: Tensor("TYPE_INT32", (-1, 3))} if head.join else {}
    decoded: Tensors = {"logits": logits, **spans, **(inputs if spans else {})}
    stage = {STAGE: TEXT} if first else {}
    model_names = names(name)

    def model(role: str, takes: Tensors, gives: Tensors, more: ConfigJson) -> ConfigJson:
        return _model(model_names[role], takes, gives, more, max_batch=engine.max_batch, version=options.version)

    on_cpu: ConfigJson = {
        "backend": "python",
        "instance_group": [{"count": 1, "kind": "KIND_CPU"}],
        "dynamic_batching": _batching(options),
    }
    ensemble: ConfigJson = {
        "platform": "ensemble",
        "ensemble_scheduling": {"step": _steps(model_names, inputs, tokens, spans, outputs, options.version, stage)},
    }
    staged: dict[str, ConfigJson] = {}
    if first:
        cached = {"response_cache": {"enable": True}} if options.response_cache else {}
        several = {**on_cpu, "instance_group": [{"count": CASCADES, "kind": "KIND_CPU"}], **cached}
        staged["cascade"] = model("cascade", tokens, {"logits": logits, **stage}, several)
        options = dataclasses.replace(options, response_cache=False)  # the cascade's cache has the answers already
        if first.engine:
            narrowed = {token: Tensor(tensor.type, (-1,)) for token, tensor in first.engine.inputs.items()}
            staged["first"] = model("first", narrowed, {"logits": logits}, _classifier(first.engine, options))
    return {
        "tokenizer": model("tokenizer", inputs, {**tokens, **spans, CUT: cut}, on_cpu),
        "classifier": model("classifier", tokens, {"logits": logits}, _classifier(engine, options)),
        **staged,
        "decoder": model("decoder", decoded, outputs, on_cpu),
        "ensemble": model("ensemble", inputs, {**outputs, **stage, "TRUNCATED": cut}, ensemble),
    }


def _model(name: str, takes: Tensors, gives: Tensors, more: ConfigJson, *, max_batch: int, version: int) -> ConfigJson:
    return {
        "name": name,
        "max_batch_size": max_batch,
        "input": to_json(takes),
        "output": to_json(gives),
        # The models of a version belong together, so an ensemble must not combine models of two versions.
        "version_policy": {"specific": {"versions": [version]}},
        **more,
    }


def _batching(options: Options) -> ConfigJson:
    """Return the fields of a batcher that adds no delay, and refuses requests that wait longer than the timeout."""
    return {
        "default_queue_policy": {
            "max_queue_size": options.queue,
            "timeout_action": "REJECT",
            "default_timeout_microseconds": 1000 * options.timeout_ms,
            "allow_timeout_override": True,
        }
    }


def _classifier(engine: Engine, options: Options) -> ConfigJson:
    """Return the fields of the classifier's configuration other than its name and tensors."""
    batching = _batching(options)
    if options.delay_us:
        batching["max_queue_delay_microseconds"] = options.delay_us
    if tuned := sorted({one.batch[1] for one in engine.profiles if one.batch[1] < engine.max_batch}):
        batching["preferred_batch_size"] = tuned  # TensorRT chose the kernels of the plan for these sizes
    (group,) = engine.config["instance_group"]
    config = engine.config | {
        "dynamic_batching": batching,
        "instance_group": [{"count": options.instances, **group}],
        "model_warmup": _warmup(engine),
    }
    if options.cuda_graphs:
        config["optimization"] = {"cuda": _cuda_graphs(engine)}
    if options.response_cache:
        config["response_cache"] = {"enable": True}
    return config


def _warmup(engine: Engine) -> list[ConfigJson]:
    """Return warm-up batches: one row of each length, and the largest batch, which allocates the most memory.

    All ids are 0, which any vocabulary contains; Triton's random ids would lie outside of it.
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


def _cuda_graphs(engine: Engine) -> ConfigJson:
    """Return the fields for CUDA graphs: one for each power of two of rows and each length, without a lower bound.

    With a lower bound, Triton would run a smaller batch in a larger graph, whose other rows would be undefined.
    """
    rows = [1 << power for power in range(engine.max_batch.bit_length())]
    specs = [
        {"batch_size": count, "input": {name: {"dim": [length]} for name in engine.inputs}}
        for length in engine.buckets
        for count in rows
    ]
    return {"graphs": True, "graph_spec": specs}


def _steps(
    model_names: dict[str, str],
    inputs: Tensors,
    tokens: Tensors,
    spans: Tensors,
    outputs: Tensors,
    version: int,
    stage: Tensors,
) -> list[ConfigJson]:
    """Return the steps of the ensemble: text -> tokens -> logits -> outputs."""

    def step(role: str, takes: dict[str, str], gives: dict[str, str]) -> ConfigJson:
        return {"model_name": model_names[role], "model_version": version, "input_map": takes, "output_map": gives}

    same, past = {name: name for name in tokens}, {name: name for name in spans}
    texts = {name: name for name in inputs} if spans else {}
    return [
        step("tokenizer", {name: name for name in inputs}, {**same, **past, CUT: "TRUNCATED"}),
        # The decoder reads `logits` and not LOGITS: where an output of the ensemble is also the input of a step, Triton
        # skips the step that produces it if a request does not ask for that output (server issue 7482).
        step("cascade" if stage else "classifier", same, {"logits": "logits", **{name: name for name in stage}}),
        step("decoder", {"logits": "logits", **past, **texts}, {name: name for name in outputs}),
    ]
