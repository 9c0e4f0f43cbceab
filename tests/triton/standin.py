"""Stands in for Triton's tensorrt and onnxruntime backends: runs the file in ONNX Runtime on the CPU.

Like TensorRT, it refuses a batch that fits no profile in the record beside the plan.
"""

import json
import os

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        folder = os.path.join(args["model_repository"], args["model_version"])
        path = os.path.join(folder, config.get("default_model_filename") or "model.onnx")
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = [one["name"] for one in config["input"]]
        self.outputs = [one["name"] for one in config["output"]]
        self.profiles = None
        if os.path.exists(path + ".json"):
            with open(path + ".json") as file:
                self.profiles = json.load(file)["profiles"]
            chosen = [int(index) for index in config["instance_group"][0]["profile"]]
            self.profiles = [self.profiles[index] for index in chosen]

    def execute(self, requests):
        columns = [
            np.concatenate([pb_utils.get_input_tensor_by_name(one, name).as_numpy() for one in requests])
            for name in self.inputs
        ]
        if self.profiles is not None and not any(fits(one, columns[0].shape) for one in self.profiles):
            raise pb_utils.TritonModelException("no profile takes " + str(columns[0].shape))
        found = self.session.run(self.outputs, dict(zip(self.inputs, columns)))
        responses, start = [], 0
        for one in requests:
            end = start + len(pb_utils.get_input_tensor_by_name(one, self.inputs[0]).as_numpy())
            tensors = [pb_utils.Tensor(name, array[start:end]) for name, array in zip(self.outputs, found)]
            responses.append(pb_utils.InferenceResponse(tensors))
            start = end
        return responses


def fits(profile, shape):
    (fewest, _, most), (shortest, _, longest) = profile["batch"], profile["length"]
    return fewest <= shape[0] <= most and shortest <= shape[1] <= longest
