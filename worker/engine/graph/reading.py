"""Reading ONNX files, with what would mislead ONNX Runtime put right."""

from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from worker.engine.errors import EngineError
from worker.engine.graph.onnx_graph import attribute, bodies_of, ints_attribute
from worker.engine.graph.padded_pools import keep_zeros_apart
from worker.engine.graph.sparse_tensors import write_densely

_STANDARD_DOMAIN = "ai.onnx"
_WEIGHTS = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3}
"""The places of the kernels of convolutions."""


def load_model(path: Path | str) -> onnx.ModelProto:
    """Read an ONNX file without touching external data. Raises EngineError where the bytes are no ONNX model."""
    model = parse(path)
    put_right(model)
    return model


def parse(path: Path | str) -> onnx.ModelProto:
    """The same, as it is in the file, which may hold anything."""
    try:
        model = onnx.load(str(path), load_external_data=False)
    except DecodeError as error:
        raise EngineError(
            "not_onnx", f"The file cannot be read as an ONNX model: {error}", "Export the model to ONNX again."
        ) from error
    return model


def put_right(model: onnx.ModelProto) -> None:
    """In place, what converters write otherwise than the standard, or ONNX Runtime reads so."""
    _forget_sizes_that_are_none(model.graph)
    _name_the_standard_domain_alike(model)
    _forget_names_that_are_taken(model.graph)
    write_densely(model.graph)
    _write_out_pads_of_dilated_kernels(model)
    keep_zeros_apart(model)


def _forget_sizes_that_are_none(graph: onnx.GraphProto) -> None:
    """Paddle's converter declares sizes of -1 where any size will do, MXNet's a batch of 0. All that reads shapes takes
    them for numbers: onnx's shape inference, and through its results ONNX Runtime, too."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_value < 0:
                size.Clear()
    stored = {tensor.name for tensor in graph.initializer}
    for value in (*graph.input, *graph.output):
        batch = value.type.tensor_type.shape.dim[:1]
        if value.name not in stored and batch and batch[0].HasField("dim_value") and batch[0].dim_value == 0:
            batch[0].Clear()


def _name_the_standard_domain_alike(model: onnx.ModelProto) -> None:
    """ONNX Runtime takes "ai.onnx" for the standard's own domain, the name of which is empty; onnx itself does not."""
    named = {opset.domain for opset in model.opset_import}
    for opset in list(model.opset_import):
        if opset.domain == _STANDARD_DOMAIN and "" in named:
            model.opset_import.remove(opset)
        elif opset.domain == _STANDARD_DOMAIN:
            opset.domain = ""
    for node in _all_nodes(model.graph):
        if node.domain == _STANDARD_DOMAIN:
            node.domain = ""


def _forget_names_that_are_taken(graph: onnx.GraphProto) -> None:
    """Some converters name several nodes alike, which ONNX Runtime refuses. Nothing refers to nodes by their names."""
    taken: set[str] = set()
    for node in _all_nodes(graph):
        if node.name in taken:
            node.name = ""
        elif node.name:
            taken.add(node.name)


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Its nodes, and those of bodies."""
    for node in graph.node:
        yield node
        for body in bodies_of(node):
            yield from _all_nodes(body)


def _write_out_pads_of_dilated_kernels(model: onnx.ModelProto) -> None:
    """torch's exporter writes padding="same" as auto_pad, which ONNX Runtime refuses to compute for dilated kernels. In
    steps of one the pads are the same for every size."""
    sizes = {tensor.name: list(tensor.dims[2:]) for tensor in model.graph.initializer}
    for node in _all_nodes(model.graph):
        auto_pad = attribute(node, "auto_pad", b"NOTSET")
        if node.op_type not in _WEIGHTS or auto_pad not in (b"SAME_UPPER", b"SAME_LOWER"):
            continue
        weight = next(iter(node.input[_WEIGHTS[node.op_type] :]), "")
        kernel = ints_attribute(node, "kernel_shape") or sizes.get(weight, [])
        dilations, strides = ints_attribute(node, "dilations") or [1], ints_attribute(node, "strides") or [1]
        if max(dilations) == 1 or set(strides) != {1} or len(kernel) != len(dilations):
            continue
        totals = [dilation * (size - 1) for dilation, size in zip(dilations, kernel, strict=True)]
        less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
        pads = [*less, *more] if auto_pad == b"SAME_UPPER" else [*more, *less]
        kept = [a for a in node.attribute if a.name not in ("auto_pad", "pads")]
        del node.attribute[:]
        node.attribute.extend([*kept, onnx.helper.make_attribute("pads", pads)])


def load_bundle(path: Path | str) -> onnx.ModelProto:
    """Read an ONNX file and the files beside it that hold its weights, into one model without external data.

    Raises EngineError where such a file is missing or too short, or lies outside the model's folder.
    """
    model = load_model(path)
    try:
        onnx.load_external_data_for_model(model, str(Path(path).parent))
    except (onnx.checker.ValidationError, OSError, ValueError) as error:
        raise EngineError(
            "external_data",
            f"The weights that lie beside the ONNX file cannot be read: {error}",
            "Keep the files of the model together in one folder, as the exporter wrote them.",
        ) from error
    return model
