"""The door for ONNX files: a model is parsed, walked and checked before anything may run it.

Each refusal is an EngineError with the offending node. What passes is plain ONNX in one file: no external data, no
code, no domains that this house does not know, nothing of absurd size.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx

from worker.engine.errors import EngineError
from worker.engine.graph.reading import parse, put_right

MAX_FILE_BYTES = 2**31 - 1  # protobuf's own limit
MAX_NODES = 100_000  # the largest real models have about 10,000
MAX_NESTING = 8  # graphs in attributes of nodes of graphs
MAX_NAME_LENGTH = 1000  # characters of a node, tensor or operator name
MAX_EDGES = 1_000_000  # inputs and outputs of all nodes

KNOWN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
BLOCKED_DOMAIN = "com.microsoft.nchwc"
"""Of what ONNX Runtime saves at its highest level of optimisation: how its weights lie depends on the processor."""

_PICKLE_STARTS = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))
_ZIP_START = b"PK\x03\x04"
_EXPORT_HINT = "Export the model with torch.onnx.export (or your framework's exporter) and upload the .onnx file."


def vet(path: Path) -> onnx.ModelProto:
    """Read and check the file. Raises EngineError with a code, a message, a hint and the offending node."""
    _check_file(path)
    model = parse(path)
    if not model.HasField("graph") or not model.graph.node:
        raise EngineError("not_onnx", "The file holds no ONNX graph with nodes.", _EXPORT_HINT)
    _refuse_extras(model)
    _check_sizes(model)
    for graph in _graphs(model.graph):
        _check_graph(graph)
    put_right(model)
    return model


def _check_file(path: Path) -> None:
    size = path.stat().st_size
    if size == 0:
        raise EngineError("empty_file", "The file is empty.", _EXPORT_HINT)
    if size > MAX_FILE_BYTES:
        raise EngineError("too_large", f"The file has {size} bytes.", f"At most {MAX_FILE_BYTES} bytes are read.")
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith((*_PICKLE_STARTS, _ZIP_START)):
        raise EngineError(
            "pickle_refused",
            "The file is a Python pickle or a torch archive: loading one runs the code in it.",
            "Save the weights as safetensors, or export the model to ONNX.",
        )


def _refuse_extras(model: onnx.ModelProto) -> None:
    if model.functions:
        raise EngineError(
            "functions_refused",
            f"The model defines {len(model.functions)} functions of its own.",
            "Inline them first: onnx.inliner.inline_local_functions(model).",
            model.functions[0].name,
        )
    if model.training_info:
        raise EngineError(
            "training_info_refused",
            "The model carries training information.",
            "Export it for inference, or delete model.training_info.",
        )


def _check_sizes(model: onnx.ModelProto) -> None:
    nodes = edges = 0
    for graph in _graphs(model.graph):
        nodes += len(graph.node)
        edges += sum(len(node.input) + len(node.output) for node in graph.node)
    if nodes > MAX_NODES:
        raise EngineError("too_many_nodes", f"The model has {nodes} nodes.", f"At most {MAX_NODES} are accepted.")
    if edges > MAX_EDGES:
        raise EngineError("too_many_edges", f"Its nodes have {edges} inputs and outputs.", f"At most {MAX_EDGES}.")


def _graphs(graph: onnx.GraphProto, depth: int = 0) -> Iterator[onnx.GraphProto]:
    """The graph and all bodies within it, outermost first."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            bodies = [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
            if bodies and depth >= MAX_NESTING:
                raise EngineError(
                    "too_deep",
                    f"Graphs are nested more than {MAX_NESTING} deep.",
                    "Flatten the If, Loop and Scan bodies of the model.",
                    _label(node),
                )
            for body in bodies:
                yield from _graphs(body, depth + 1)


def _check_graph(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        if node.domain == BLOCKED_DOMAIN:
            raise EngineError(
                "runtime_layout",
                "ONNX Runtime saved this file with its weights in blocks for one kind of processor.",
                "Upload the model before that optimisation, or save it at ORT_ENABLE_EXTENDED at most.",
                _label(node),
            )
        if node.domain not in KNOWN_DOMAINS:
            raise EngineError(
                "unknown_domain",
                f"The operator {node.op_type!r} is of the domain {node.domain!r}, which is not known here.",
                "Express it with standard ONNX operators.",
                _label(node),
            )
        for name in (node.name, node.op_type, *node.input, *node.output, *(a.name for a in node.attribute)):
            _check_name(name, node)
        for tensor in _tensors(node):
            _refuse_external(tensor, _label(node))
    for value in (*graph.input, *graph.output, *graph.value_info):
        _check_name(value.name)
    for tensor in (*graph.initializer, *_parts(graph.sparse_initializer)):
        _check_name(tensor.name)
        _refuse_external(tensor, tensor.name)


def _check_name(name: str, node: onnx.NodeProto | None = None) -> None:
    if len(name) > MAX_NAME_LENGTH:
        raise EngineError(
            "name_too_long",
            f"A name has {len(name)} characters: {name[:40]!r}…",
            f"At most {MAX_NAME_LENGTH} characters are accepted.",
            _label(node) if node is not None else None,
        )


def _refuse_external(tensor: onnx.TensorProto, where: str) -> None:
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        raise EngineError(
            "external_data",
            "The weights lie in another file.",
            "Upload a zip of the .onnx file and the files beside it with format=onnx_zip, or save the model in one "
            "file: onnx.save(onnx.load(path), path, save_as_external_data=False).",
            where[:MAX_NAME_LENGTH],
        )


def _tensors(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        if attribute.HasField("sparse_tensor"):
            yield from _parts([attribute.sparse_tensor])
        yield from _parts(attribute.sparse_tensors)


def _parts(tensors: Iterator[onnx.SparseTensorProto] | list[onnx.SparseTensorProto]) -> Iterator[onnx.TensorProto]:
    for tensor in tensors:
        yield tensor.values
        yield tensor.indices


def _label(node: onnx.NodeProto) -> str:
    return (node.name or next(iter(node.output), "") or node.op_type)[:MAX_NAME_LENGTH]
