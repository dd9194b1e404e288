"""From an ONNX graph to a torch.fx.GraphModule with the same inputs, outputs and weight names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import onnx
import torch
from onnx import GraphProto, NodeProto, TensorProto, numpy_helper
from onnx.inliner import inline_local_functions
from torch import fx, nn

from worker.engine.errors import EngineError
from worker.engine.graph.onnx_graph import in_order
from worker.engine.graph.standard_ops import with_standard_ops
from worker.engine.torch_form.failures import TORCH_ERRORS
from worker.engine.torch_form.form import RunningAverage, TorchForm, is_interface
from worker.engine.torch_form.names import attribute_paths, encode
from worker.engine.torch_form.node_modules import Branches, runs_detached
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
    """The model as a trainable torch module, in evaluation mode. Half precision is computed in float32.

    Raises EngineError, naming the node, where an op without a torch rule lies on a gradient path.
    """
    load_rules()
    if model.functions:
        model = inline_local_functions(model)
    model = with_standard_ops(in_order(model))
    stored = stored_tensors(model.graph)
    trainable = trainable_names(model.graph, stored)
    builder = _Builder(model, static_types(model), stored, trainable)
    builder.add_inputs([value for value in model.graph.input if value.name not in stored])
    builder.add_graph(model.graph)
    module = builder.module(model.graph)
    held = dict(module.named_parameters(remove_duplicate=False))
    return TorchForm(
        module=module,
        model=model,
        parameters={name: path for name, path in builder.paths.items() if name in trainable and path in held},
        averages=tuple(builder.averages),
        values=builder.live_values(),
    )


class _Builder:
    """The fx graph under construction. `values` maps each ONNX value name to what it is in torch."""

    anchor: fx.Node
    batch: int | None = None

    def __init__(
        self,
        model: onnx.ModelProto,
        types: dict[str, StaticType],
        stored: dict[str, TensorProto],
        trainable: set[str],
    ) -> None:
        self.model, self.types, self.trainable = model, types, trainable
        self.opset = next((o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}), 1)
        self.paths = attribute_paths(stored)
        self.averages: list[RunningAverage] = []
        self.values: dict[str, Value | None] = {"": None}
        self.learned = set(trainable)  # names of the values that depend on trainable weights
        self.graph = fx.Graph()
        self.members: dict[str, Any] = {"training": True}  # what the module holds, by attribute path
        self._stored = stored
        self._names: dict[int, str] = {}  # value names of known tensors, by id
        self._readers: dict[str, fx.Node] = {}  # the node that reads a member, by path
        self._current = ""

    def add_inputs(self, inputs: list[onnx.ValueInfoProto]) -> None:
        """Placeholders for the graph inputs."""
        if not inputs:
            raise EngineError("no_input", "The model has no input.", "Export it with its inputs.")
        placeholders = [self._placeholder(value.name) for value in inputs]
        self.anchor, self.batch = placeholders[0], _fixed_batch(inputs[0])
        for value, node in zip(inputs, placeholders, strict=True):
            is_half = value.type.tensor_type.elem_type in _HALVES
            self.values[value.name] = self.graph.call_function(cast_to, (node, torch.float32)) if is_half else node

    def add_captured(self, outer: _Builder, names: list[str]) -> None:
        """Placeholders for what a branch reads from the graph around it; constants are simply known."""
        for name in names:
            value = outer.values[name]
            if isinstance(value, torch.Tensor):
                self._know(name, value)
            elif value is not None:
                self.values[name] = placeholder = self._placeholder(name)
                placeholder.meta.update({k: v for k, v in value.meta.items() if k == PYTHON_RANK})

    def _placeholder(self, name: str) -> fx.Node:
        """Of a name that Python accepts, and that no other and nothing in the module's code has: files call their
        inputs `0`, `class` or `torch`."""
        count = sum(node.op == "placeholder" for node in self.graph.nodes)
        return self.graph.placeholder(f"input_{count}_{re.sub(r'[^0-9A-Za-z_]', '_', name)}")

    def add_graph(self, graph: GraphProto) -> None:
        """The stored tensors, then every node in order."""
        self.training = self.graph.get_attr("training")
        for name, tensor in self._stored.items():
            known = known_tensor(numpy_helper.to_array(tensor))
            if name in self.trainable:
                self.values[name] = self._member(self.paths[name], nn.Parameter(known))
            else:
                self._know(name, known)
        for node in graph.node:
            self._add(node)

    def module(self, graph: GraphProto) -> fx.GraphModule:
        """The module that returns the tuple of the graph's outputs."""
        self.graph.output(tuple(self._tensor(output.name) for output in graph.output))
        self.graph.eliminate_dead_code(is_impure_node=is_interface)
        module = fx.GraphModule(self.members, self.graph, class_name="OnnxGraph")
        module.eval()
        return module

    def live_values(self) -> dict[str, fx.Node]:
        """Values that the finished graph still computes."""
        live = set(self.graph.nodes)
        return {name: value for name, value in self.values.items() if isinstance(value, fx.Node) and value in live}

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
        initial = value.detach().clone()
        self.averages.append(RunningAverage(node.output[0], index, name, path, initial))
        return self._member(path, initial.clone())

    def _add(self, node: NodeProto) -> None:
        if node.op_type == "Constant" and node.output[0] in self.values:
            return
        operation = self._operation(node)
        self._current = operation.name
        if any(name in self.learned for name in (*node.input, *_captured(node))):
            self.learned.update(node.output)
        try:
            result = self._result(operation)
        except (*TORCH_ERRORS, KeyError) as error:
            raise operation.unsupported(f"building it failed with {type(error).__name__}: {error}") from error
        results = result if isinstance(result, tuple) else (result,)
        for name, value in zip(node.output, results, strict=False):
            if isinstance(value, torch.Tensor):
                self._know(name, value)
            elif name:
                self.values[name] = value

    def _operation(self, node: NodeProto) -> Operation:
        missing = [name for name in node.input if name not in self.values]
        if missing:
            raise EngineError(
                "invalid_model", f"Value {missing[0]!r} is used before it exists.", "Export the model again.", node.name
            )
        types = tuple(self.types.get(name, StaticType()) for name in node.input)
        return Operation(node, self.opset, tuple(self.values[name] for name in node.input), types, self)

    def _result(self, operation: Operation) -> Result:
        node = operation.proto
        if node.domain not in {"", "ai.onnx"}:
            return self._foreign(operation)
        if node.op_type == "If":
            return self._if(operation)
        if node.op_type in PYTHON_RULES and _is_python(operation):
            value = PYTHON_RULES[node.op_type](operation)
            if value is not None:
                return value
        return RULES[node.op_type](operation) if node.op_type in RULES else self._foreign(operation)

    def _if(self, operation: Operation) -> Result:
        """The branch that a known condition takes, in place; or both as modules, of which one runs."""
        bodies = [operation.attribute(name) for name in ("then_branch", "else_branch")]
        condition = operation.known(0)
        if condition is not None:
            body = bodies[0] if bool(condition) else bodies[1]
            self._add_inner(body)
            return tuple(self.values[output.name] for output in body.output)
        names = list(dict.fromkeys(name for body in bodies for name in _read_by(body)))
        captured = [n for n in names if isinstance(self.values[n], fx.Node)]
        path = f"operators.n{len(self.members)}"
        self.members[path] = Branches(*(self._branch(body, names) for body in bodies))
        called = self.graph.call_module(path, (operation.given(0), self.anchor, *(self.values[n] for n in captured)))
        return operation.unpack(called, len(operation.proto.output))

    def _branch(self, body: GraphProto, names: list[str]) -> fx.GraphModule:
        """A branch as module; its own constants stay as they are."""
        inner = _Builder(self.model, self.types, stored_tensors(body), set())
        inner.anchor = inner.graph.placeholder("anchor")
        inner.add_captured(self, names)
        inner.learned = {name for name in names if name in self.learned}
        inner.add_graph(body)
        return inner.module(body)

    def _add_inner(self, body: GraphProto) -> None:
        for name, tensor in stored_tensors(body).items():
            self._know(name, known_tensor(numpy_helper.to_array(tensor)))
        for node in body.node:
            self._add(node)

    def _foreign(self, operation: Operation) -> Result:
        """A node that ONNX Runtime executes, without gradients."""
        from worker.engine.torch_form.foreign_node import ForeignNode

        node = operation.proto
        names = list(dict.fromkeys(name for name in (*node.input, *_captured(node)) if name))
        if any(name in self.learned for name in names) and not runs_detached(node):
            raise operation.unsupported("it has no torch rule and lies on a gradient path")
        path = f"operators.n{len(self.members)}"
        elem_types = [self.types.get(name, StaticType()).elem_type for name in names]
        self.members[path] = ForeignNode(node, self.model, names, elem_types)
        called = self.graph.call_module(path, tuple(self._tensor(name) for name in names) or (self.anchor,))
        called.meta["onnx_node"] = operation.name
        return operation.unpack(called, len(node.output))

    def _tensor(self, name: str) -> fx.Node:
        """A value as run-time tensor, whatever it is."""
        value = self.values[name]
        if isinstance(value, torch.Tensor):
            return self.buffer(value)
        if value is None:
            raise EngineError("invalid_model", f"Value {name!r} has no content.", "Export the model again.")
        if PYTHON_RANK in value.meta:
            dtype = TORCH_DTYPES.get(self.types.get(name, StaticType()).elem_type or 0)
            return self.emit(tensor_of, (value, dtype, self.anchor), {})
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
    return list(dict.fromkeys(name for body in _bodies(node) for name in _read_by(body)))


def _read_by(body: GraphProto) -> list[str]:
    """Names that a body reads and does not make."""
    read: dict[str, None] = {}
    made = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
    for node in body.node:
        read.update((name, None) for name in (*node.input, *_captured(node)) if name and name not in made)
        made.update(node.output)
    read.update((output.name, None) for output in body.output if output.name not in made)
    return list(read)


def _bodies(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        yield from attribute.graphs
        if attribute.HasField("g"):
            yield attribute.g


def _fixed_batch(value: onnx.ValueInfoProto) -> int | None:
    dims = value.type.tensor_type.shape.dim
    return dims[0].dim_value or None if dims else None
