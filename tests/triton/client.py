"""Sends requests to a server of the V2 protocol with tritonclient, in a Python of its own.

It reads a JSON list of calls from stdin and writes the list of their results to stdout. A call has `wire` (http or
grpc), `model`, and `inputs` (name -> rows, each a list of texts), or `hex` (the same with hexadecimal bytes). Optional
keys are `outputs` (names; default all), `json` (no binary tensors), and `clients` with `each` (this many threads send
this many requests each). A result has the outputs by name, or `status` and `message` of an error; with `clients` it has
the number of requests by status.
"""

import collections
import concurrent.futures
import json
import sys

import numpy as np
import tritonclient.grpc
import tritonclient.http

WIRES = {"http": (tritonclient.http, sys.argv[1]), "grpc": (tritonclient.grpc, sys.argv[2])}


def tensors(module, call):
    made = []
    decode = bytes.fromhex if "hex" in call else str.encode
    for name, rows in (call.get("hex") or call["inputs"]).items():
        array = np.array([[decode(one) for one in row] for row in rows], dtype=np.object_)
        tensor = module.InferInput(name, list(array.shape), "BYTES")
        if call["wire"] == "http":
            tensor.set_data_from_numpy(array, binary_data=not call.get("json"))
        else:
            tensor.set_data_from_numpy(array)
        made.append(tensor)
    return made


def infer(client, module, call):
    options = {}
    if call.get("outputs"):
        options["outputs"] = [module.InferRequestedOutput(name) for name in call["outputs"]]
    if call.get("json"):
        options["outputs"] = [module.InferRequestedOutput(name, binary_data=False) for name in ("LABEL", "LOGITS")]
    try:
        found = client.infer(call["model"], tensors(module, call), **options)
    except Exception as error:
        return {"status": str(getattr(error, "status", lambda: "")()), "message": str(error)}
    response = found.get_response()
    outputs = response["outputs"] if call["wire"] == "http" else response.outputs
    names = [one["name"] if call["wire"] == "http" else one.name for one in outputs]
    return {name: plain(found.as_numpy(name)) for name in names}


def plain(array):
    if array.dtype != np.object_:
        return array.tolist()
    return [[one if isinstance(one, str) else one.decode() for one in row] for row in array.tolist()]


def respond(call):
    module, address = WIRES[call["wire"]]
    clients = call.get("clients", 0)
    with module.InferenceServerClient(address) as client:
        if not clients:
            return infer(client, module, call)

    def work(_):
        with module.InferenceServerClient(address) as client:
            return [infer(client, module, call).get("status", "ok") for _ in range(call["each"])]

    with concurrent.futures.ThreadPoolExecutor(clients) as threads:
        return dict(collections.Counter(one for many in threads.map(work, range(clients)) for one in many))


json.dump([respond(call) for call in json.load(sys.stdin)], sys.stdout)
