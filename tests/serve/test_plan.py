"""A TensorRT plan, served with stand-ins for TensorRT and PyCUDA: it is opened and run in the worker's thread."""

import asyncio

import numpy as np
import pytest

from toolchain.evaluation.target import find_target
from toolchain.runtimes import open_runtime
from toolchain.serve.protocol import InferRequest, Tensor
from toolchain.serve.service import open_service


def serve(bundle, batches):
    texts = ["good", "a good bright film " * 5, "a slow sad story " * 20]
    column = np.array([[text.encode()] for text in texts], object)
    target = find_target({"backend": "trt"}, bundle)
    tokens = target.resolved.encode([(text,) for text in texts])
    with open_runtime("trt", target.model, **target.choices) as infer:
        expected = np.concatenate([infer(tokens.batch(np.array([row]))) for row in range(3)])

    async def ask():
        async with open_service(bundle) as service:
            assert service.description.model["platform"] == "toolchain_trt"
            assert service.device == "cuda:0"
            answer = await service.infer(InferRequest(service.name, (Tensor("TEXT", "BYTES", column),), ("LOGITS",)))
            np.testing.assert_allclose(answer.outputs[0].array, expected, rtol=1e-3, atol=1e-3)
            assert (service.limits.max_batch, service.counters.executions) == (16, batches)

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("options", "batches"), [(("--buckets", "16,128"), 2), (("--attention", "plugin"), 1)], ids=["buckets", "packed"]
)
def test_a_plan_is_served_with_the_shapes_of_its_profiles(toolchain, in_double, bundle_of, options, batches):
    bundle = bundle_of("fp16")
    done = toolchain("build", bundle, "--backend", "trt", "--batch-size", "1,4,16", *options)
    assert done.returncode == 0, done.stderr
    in_double(serve, bundle=bundle, batches=batches)
