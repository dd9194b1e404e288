"""Reading ONNX files, with what would mislead ONNX Runtime put right."""

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from worker.engine.errors import EngineError
from worker.engine.graph.padded_pools import keep_zeros_apart


def load_model(path: Path | str) -> onnx.ModelProto:
    """Read an ONNX file without touching external data. Raises EngineError where the bytes are no ONNX model."""
    model = parse(path)
    keep_zeros_apart(model)
    return model


def parse(path: Path | str) -> onnx.ModelProto:
    """The same, without a look at the graph, which may be anything."""
    try:
        model = onnx.load(str(path), load_external_data=False)
    except DecodeError as error:
        raise EngineError(
            "not_onnx", f"The file cannot be read as an ONNX model: {error}", "Export the model to ONNX again."
        ) from error
    _forget_negative_sizes(model.graph)
    return model


def _forget_negative_sizes(graph: onnx.GraphProto) -> None:
    """Paddle's converter declares sizes of -1 where any size will do. All that reads shapes takes them for numbers:
    onnx's shape inference, and through its results ONNX Runtime, too."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_value < 0:
                size.Clear()


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
