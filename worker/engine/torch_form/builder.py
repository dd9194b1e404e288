"""From an ONNX graph to a torch.fx.GraphModule with the same inputs, outputs and weight names."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import onnx
import torch
from onnx import NodeProto, TensorProto, numpy_helper
from onnx.inliner import inline_local_functions
from torch import fx, nn

from worker.engine.errors import EngineError
from worker.engine.torch_form.foreign import ForeignNode, runs_detached
from worker.engine.torch_form.form import RunningAverage, TorchForm, is_interface
from worker.engine.torch_form.names import attribute_paths, encode
from worker.engine.torch_form.operation import (
    PYTHON_RANK,
    TORCH_DTYPES,
    Operation,
    StaticType,
    Value,
    known_tensor,
    tensor_of,
)
from worker.engine.torch_form.registry import PYTHON_RULES, RULES, Result, load_rules
from worker.engine.torch_form.rules.elementwise import cast_to
from worker.engine.torch_form.static_types import static_types
from worker.engine.torch_form.weights import stored_tensors, trainable_names

_HALVES = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})


def build(model: onnx.ModelProto) -> TorchForm:
    """The model as a trainable torch module. Half precision is computed in float32.

    Raises EngineError, naming the node, where an op without a torch rule lies on a gradient path.
    """
    load_rules()
    if model.functions:
        model = inline_local_functions(model)
    builder = _Builder(model)
    builder.add_inputs()
    for node in model.graph.node:
        builder.add(node)
    return builder.finish()


class _Builder:
    """The fx graph under construction. `values` maps each ONNX value name to what it is in torch."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.opset = next((o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}), 1)
        self.graph = fx.Graph()
        self.members: dict[str, Any] = {"training": True}  # what the module holds, by attribute path
        self.types = static_types(model)
        stored = stored_tensors(model.graph)
        self.trainable = trainable_names(model.graph, stored)
        self.paths = attribute_paths(stored)
        self.averages: list[RunningAverage] = []
        self.values: dict[str, Value | None] = {"": None}
        self.learned = set(self.trainable)  # names of the values that depend on trainable weights
        self._stored = stored
        self._names: dict[int, str] = {}  # value names of known tensors, by id
        self._readers: dict[str, fx.Node] = {}  # the node that reads a member, by path
        self._current = ""

    def add_inputs(self) -> None:
        """Placeholders for the graph inputs (initializers among them are no inputs), then the stored tensors."""
        inputs = [i for i in self.model.graph.input if i.name not in self._stored]
        if not inputs:
            raise EngineError("no_input", "The model has no input.", "Export it with its inputs.")
        placeholders = [self.graph.placeholder(_identifier(i.name)) for i in inputs]
        self.anchor = placeholders[0]
        self.training = self.graph.get_attr("training")
        for value, node in zip(inputs, placeholders, strict=True):
            is_half = value.type.tensor_type.elem_type in _HALVES
            self.values[value.name] = self.graph.call_function(cast_to, (node, torch.float32)) if is_half else node
        for name, tensor in self._stored.items():
            array = known_tensor(numpy_helper.to_array(tensor))
            if name in self.trainable:
                self.values[name] = self._member(self.paths[name], nn.Parameter(array))
            else:
                self._know(name, array)

    def add(self, node: NodeProto) -> None:
        """Translate one node."""
        if node.op_type == "Constant" and node.output[0] in self.values:
            return
        operation = self._operation(node)
        self._current = operation.name
        if any(name in self.learned for name in node.input):
            self.learned.update(node.output)
        try:
            result = self._result(operation)
        except (RuntimeError, TypeError, ValueError, IndexError, KeyError) as error:
            raise operation.unsupported(f"building it failed with {type(error).__name__}: {error}") from error
        results = result if isinstance(result, tuple) else (result,)
        for name, value in zip(node.output, results, strict=False):
            if isinstance(value, torch.Tensor):
                self._know(name, value)
            elif name:
                self.values[name] = value

    def finish(self) -> TorchForm:
        """The module with the graph outputs as tuple, in training mode off."""
        outputs = []
        for output in self.model.graph.output:
            value = self.values[output.name]
            if isinstance(value, torch.Tensor):
                value = self.buffer(value)
            elif value is not None and PYTHON_RANK in value.meta:
                dtype = TORCH_DTYPES.get(output.type.tensor_type.elem_type)
                value = self.emit(tensor_of, (value, dtype, self.anchor), {})
            outputs.append(value)
        self.graph.output(tuple(outputs))
        self.graph.eliminate_dead_code(is_impure_node=is_interface)
        module = fx.GraphModule(self.members, self.graph, class_name="OnnxGraph")
        module.eval()
        parameters = {name: self.paths[name] for name in self._stored if name in self.trainable}
        held = dict(module.named_parameters(remove_duplicate=False))
        return TorchForm(
            module=module,
            model=self.model,
            parameters={name: path for name, path in parameters.items() if path in held},
            averages=tuple(self.averages),
            values=self._live_values(),
        )

    def emit(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.Node:
        """Add a call of a torch function; the fx node remembers its ONNX node."""
        node = self.graph.call_function(function, args, kwargs)
        node.meta["onnx_node"] = self._current
        return node

    def buffer(self, tensor: torch.Tensor) -> fx.Node:
        """A known tensor as buffer of the module, under its value name if it has one."""
        name = self._names.get(id(tensor))
        if name is None:
            name = f"{self._current}/constant_{len(self.members)}"
            self._know(name, tensor)
        return self._member(self.paths.get(name) or encode(name), tensor)

    def running_average(self, node: NodeProto, index: int) -> fx.Node | None:
        """A buffer that belongs to this node alone. Exporters merge equal tensors, so one stored tensor may be the
        statistic of several norms, and a weight too: it gets a name of its own where the stored one is taken."""
        name = node.input[index]
        value = self.values[name]
        if isinstance(value, fx.Node):
            value = self.members.get(str(value.target)) if value.op == "get_attr" else None
        if not isinstance(value, torch.Tensor):
            return None
        taken = {average.name for average in self.averages}
        if name not in self._stored or name in taken or name in self.trainable:
            name = f"{name}/of/{node.output[0]}/{index}"
        path = self.paths.get(name) or encode(name)
        self.averages.append(RunningAverage(node.output[0], index, name, path))
        return self._member(path, value.detach().clone())

    def _live_values(self) -> dict[str, fx.Node]:
        live = set(self.graph.nodes)
        return {name: value for name, value in self.values.items() if isinstance(value, fx.Node) and value in live}

    def _operation(self, node: NodeProto) -> Operation:
        types = tuple(self.types.get(name, StaticType()) for name in node.input)
        missing = [name for name in node.input if name not in self.values]
        if missing:
            raise EngineError(
                "invalid_model", f"Value {missing[0]!r} is used before it exists.", "Export the model again.", node.name
            )
        return Operation(node, self.opset, tuple(self.values[name] for name in node.input), types, self)

    def _result(self, operation: Operation) -> Result:
        node = operation.proto
        if node.domain not in {"", "ai.onnx"} or node.op_type not in RULES:
            return self._foreign(operation)
        if node.op_type in PYTHON_RULES and _is_python(operation):
            value = PYTHON_RULES[node.op_type](operation)
            if value is not None:
                return value
        return RULES[node.op_type](operation)

    def _foreign(self, operation: Operation) -> Result:
        """A node that ONNX Runtime executes, without gradients."""
        node = operation.proto
        on_path = any(name in self.learned for name in node.input)
        if on_path and not runs_detached(node):
            raise operation.unsupported("it has no torch rule and lies on a gradient path")
        outer = [name for name in _captured(node) if name not in node.input]
        names = [name for name in (*node.input, *outer) if name]
        path = f"operators.n{len(self.members)}"
        self.members[path] = ForeignNode(node, self.model, names)
        tensors = [self._tensor(name) for name in names]
        called = self.graph.call_module(path, tuple(tensors) or (self.anchor,))
        called.meta["onnx_node"] = operation.name
        return operation.unpack(called, len(node.output))

    def _tensor(self, name: str) -> fx.Node:
        value = self.values[name]
        if isinstance(value, torch.Tensor):
            return self.buffer(value)
        if value is not None and PYTHON_RANK in value.meta:
            dtype = TORCH_DTYPES.get(self.types.get(name, StaticType()).elem_type or 0)
            return self.emit(tensor_of, (value, dtype, self.anchor), {})
        if value is None:
            raise EngineError("invalid_model", f"Value {name!r} has no content.", "Export the model again.")
        return value

    def _know(self, name: str, tensor: torch.Tensor) -> None:
        if name:
            self.values[name] = tensor
            self._names.setdefault(id(tensor), name)

    def _member(self, path: str, member: torch.Tensor) -> fx.Node:
        if path not in self._readers:
            self.members[path] = member
            self._readers[path] = self.graph.get_attr(path)
        return self._readers[path]


def _is_python(operation: Operation) -> bool:
    """Whether some input is a run-time Python value and the others are constants or Python values too."""
    nodes = [value for value in operation.inputs if isinstance(value, fx.Node)]
    return bool(nodes) and all(PYTHON_RANK in node.meta for node in nodes)


def _captured(node: NodeProto) -> list[str]:
    """Names that the bodies of a control-flow node take from the graph around it."""
    captured: dict[str, None] = {}
    for attribute in node.attribute:
        for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            inner = {v.name for v in body.input} | {t.name for t in body.initializer}
            for child in body.node:
                captured.update((n, None) for n in (*child.input, *_captured(child)) if n and n not in inner)
                inner.update(child.output)
            captured.update((o.name, None) for o in body.output if o.name not in inner)
    return list(captured)


def _identifier(name: str) -> str:
    return re.sub(r"\W", "_", name) or "input"
