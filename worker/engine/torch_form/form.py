"""The torch form of an ONNX model, and the way of its weights back into the file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import fx, nn

from worker.engine.errors import EngineError
from worker.engine.graph import sample_inputs
from worker.engine.graph.inputs import declared_shape, given_inputs
from worker.engine.torch_form.one_by_one import OneByOne, takes_batches
from worker.engine.torch_form.weights import overwrite, stored_tensors


@dataclass(frozen=True)
class RunningAverage:
    """A BatchNormalization statistic: the input (`index`) of the node that makes `output`, kept as buffer at `path`,
    and its value when the form was built."""

    output: str
    index: int
    name: str
    path: str
    initial: torch.Tensor


@dataclass(frozen=True)
class TorchForm:
    """An ONNX graph as torch module.

    `module` takes the graph's inputs in order and returns the tuple of its outputs. `parameters` maps the names of the
    trained tensors to their attribute paths (see `names`), `values` those of the values computed from the inputs to
    the nodes of the module's graph.
    """

    module: fx.GraphModule
    model: onnx.ModelProto
    parameters: dict[str, str]
    averages: tuple[RunningAverage, ...]
    values: dict[str, fx.Node]

    def up_to(self, *values: str) -> fx.GraphModule:
        """A module with the same weights that returns inner values, by their ONNX names, as a tuple."""
        for value in values:
            if value not in self.values:
                raise EngineError(
                    "constant_output",
                    f"Value {value!r} does not depend on the model's input.",
                    "Export the model again.",
                )
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        graph.graph_copy(self.module.graph, copies)
        graph.output(tuple(copies[self.values[value]] for value in values))
        graph.eliminate_dead_code(is_impure_node=is_interface)
        return fx.GraphModule(self.module, graph, class_name="OnnxGraph")

    @cached_property
    def takes_batches(self) -> bool:
        """Whether images may come together, tried on two of them where the model declares that it takes one."""
        inputs = given_inputs(self.model)
        shape = declared_shape(inputs[0]) if len(inputs) == 1 else None
        if not shape or shape[0] != 1:
            return True
        ((image,), (other,)) = (sample_inputs(self.model, seed).values() for seed in (0, 1))
        images = torch.from_numpy(np.concatenate([image, other]))
        images = images.to(next((p.device for p in self.module.parameters()), "cpu"))
        was_training = self.module.training
        try:
            return takes_batches(self.module.eval(), images)
        finally:
            self.module.train(was_training)

    def on_batches(self, network: nn.Module) -> nn.Module:
        """A network of this form, such as `up_to` makes, as it goes through batches: image by image if it has to."""
        return network if self.takes_batches else OneByOne(network)

    def write_back(self) -> onnx.ModelProto:
        """A copy of the model with the module's weights and running averages, under the same names and stored types."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        stored = stored_tensors(model.graph)
        for name, path in self.parameters.items():
            overwrite(stored[name], _numbers(self.module.get_parameter(path)))
        nodes = {node.output[0]: node for node in model.graph.node if node.output}
        for average in self.averages:
            values, node = _numbers(self.module.get_buffer(average.path)), nodes[average.output]
            if average.name in stored:
                overwrite(stored[average.name], values)
            elif not np.array_equal(values, _read_by(node, average, stored)):
                _give_own_statistic(model, node, average, values)
        return model


def _read_by(node: onnx.NodeProto, average: RunningAverage, stored: dict[str, onnx.TensorProto]) -> np.ndarray:
    """What the node would find for a statistic that shares its tensor: others may have been trained meanwhile."""
    tensor = stored.get(node.input[average.index])
    initial = _numbers(average.initial)
    return initial if tensor is None else numpy_helper.to_array(tensor).astype(initial.dtype)


def _give_own_statistic(
    model: onnx.ModelProto, node: onnx.NodeProto, average: RunningAverage, values: np.ndarray
) -> None:
    """A statistic that shared its stored tensor with others gets one of its own, now that it differs."""
    model.graph.initializer.append(numpy_helper.from_array(values, average.name))
    node.input[average.index] = average.name


def is_interface(node: fx.Node) -> bool:
    """Nodes that stay although nothing reads them."""
    return node.op in {"placeholder", "output"}


def _numbers(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
