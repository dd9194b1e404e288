"""Small ONNX models for the tests of the torch form."""

import io

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper


def model_of(nodes, inputs, outputs, stored=None, opset=17):
    """A model from nodes; inputs are name -> shape (float32), outputs are names, stored is name -> array."""
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in inputs.items()]
    results = [helper.make_empty_tensor_value_info(name) for name in outputs]
    tensors = [numpy_helper.from_array(np.asarray(v), n) for n, v in (stored or {}).items()]
    graph = helper.make_graph(nodes, "graph", values, results, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def floats(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def exported(network, example, training=False):
    """The network by torch's tracing exporter, with a dynamic batch axis and BatchNormalization kept."""
    file = io.BytesIO()
    mode = torch.onnx.TrainingMode.TRAINING if training else torch.onnx.TrainingMode.PRESERVE
    torch.onnx.export(
        network,
        (example,),
        file,
        dynamo=False,
        training=mode,
        do_constant_folding=False,
        input_names=["x"],
        output_names=["y"],
        dynamic_axes={"x": {0: "batch"}},
        opset_version=17,
    )
    return onnx.load_from_string(file.getvalue())


def randomised(network):
    """The network with every parameter and statistic different from its neighbours, as training leaves them."""
    generator = torch.Generator().manual_seed(0)
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            noise = torch.rand(value.shape, generator=generator)
            value.copy_(0.5 + noise if name.endswith("running_var") else value + 0.2 * (noise - 0.5))
    return network
