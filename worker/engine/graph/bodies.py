"""Shapes inside the bodies of If, Loop and Scan, which no session exposes: inferred from what enters a body."""

from collections.abc import Mapping

import onnx

from worker.engine.graph.onnx_graph import Body, OnnxGraph, int_attribute, ints_attribute

Shapes = dict[str, tuple[int, ...]]


def observe_bodies(graph: OnnxGraph, outer: Mapping[str, tuple[int, ...]], types: Mapping[str, int]) -> Shapes:
    """Shapes of the tensors in bodies, as far as static inference finds them; the rest stays unknown."""
    shapes: Shapes = dict(outer)
    known_types = dict(types) | {name: t.data_type for name, t in graph.constants.items()}
    for body in graph.bodies:  # outer bodies come before the bodies inside them
        _enter(graph, body, shapes, known_types)
        model = _standalone(graph, body, shapes, known_types)
        try:
            inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        except onnx.shape_inference.InferenceError:
            continue
        for value in (*inferred.value_info, *inferred.output):
            tensor = value.type.tensor_type
            if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
                shapes[value.name] = tuple(d.dim_value for d in tensor.shape.dim)
                known_types[value.name] = tensor.elem_type
    return {name: shape for name, shape in shapes.items() if name not in outer}


def _enter(graph: OnnxGraph, body: Body, shapes: Shapes, types: dict[str, int]) -> None:
    """Shapes of a body's own inputs: loop counters are scalars, carried tensors keep their size, scans drop an axis."""
    owner = graph.nodes[body.owner]
    inputs = [value.name for value in body.graph.input]
    if owner.op_type == "Loop":
        for name, kind in zip(inputs, (onnx.TensorProto.INT64, onnx.TensorProto.BOOL), strict=False):
            shapes[name], types[name] = (), kind
        passed = list(zip(inputs[2:], owner.input[2:], strict=False))
    elif owner.op_type == "Scan":
        scanned = int_attribute(owner, "num_scan_inputs", 0)
        axes = ints_attribute(owner, "scan_input_axes") or [0] * scanned
        passed = list(zip(inputs, owner.input, strict=False))
        for (inner, outside), axis in zip(passed[len(passed) - scanned :], axes, strict=True):
            if outside in shapes:
                whole = list(shapes[outside])
                del whole[axis]
                shapes[inner], types[inner] = tuple(whole), types.get(outside, onnx.TensorProto.FLOAT)
        passed = passed[: len(passed) - scanned]
    else:
        passed = []
    for inner, outside in passed:
        if outside in shapes:
            shapes[inner], types[inner] = shapes[outside], types.get(outside, onnx.TensorProto.FLOAT)


def _standalone(graph: OnnxGraph, body: Body, shapes: Shapes, types: Mapping[str, int]) -> onnx.ModelProto:
    """The body as a model of its own, whose inputs are all that it reads from outside."""
    model = onnx.ModelProto(ir_version=max(graph.model.ir_version, 4))
    model.opset_import.extend(graph.model.opset_import)
    model.graph.name = body.graph.name or "body"
    model.graph.node.extend(body.graph.node)
    made = {name for node in body.graph.node for name in node.output}
    read = {name for node in body.graph.node for name in node.input if name} - made
    for name in sorted(read):
        if name in graph.constants:
            model.graph.initializer.append(graph.constants[name])
            model.graph.initializer[-1].name = name
        elif name in shapes and name in types:
            model.graph.input.append(onnx.helper.make_tensor_value_info(name, types[name], shapes[name]))
    for value in body.graph.output:
        model.graph.output.add().name = value.name
    return model
