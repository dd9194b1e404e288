"""An inspect job: an upload is vetted and described, or refused with a reason."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx

from models_store.documents.base import Document
from models_store.documents.inspection import DatasetInspection, LayerInfo, ModelInspection, Rejection, TensorInfo
from worker.engine.data import inspect_dataset
from worker.engine.errors import EngineError
from worker.engine.graph import Analysis, analyze
from worker.engine.graph.analysis import LAYER_OPS
from worker.engine.graph.inputs import declared_shape
from worker.engine.graph.onnx_graph import node_label
from worker.engine.graph.padded_pools import kept_apart
from worker.order import CANONICAL_MODEL, InputFile, InspectionResult, Order
from worker.runner.bundle import join_bundle
from worker.runner.byte_budget import check_bytes
from worker.runner.diagnosis import is_out_of_memory
from worker.runner.trial import load, try_to_run
from worker.runner.vetting import MAX_FILE_BYTES, vet
from worker.runner.voice import Voice
from worker.work_folder import WorkFolder


class TorchvisionDetails(Document):
    """What the uploader of safetensors weights said about them."""

    architecture: str
    num_classes: int
    input_shape: tuple[int, int, int]


class DatasetDetails(Document):
    """Whether the uploader of a dataset said what it is; else its format is what its first bytes look like."""

    format_named: bool = True


def inspect(order: Order, folder: WorkFolder, voice: Voice) -> InspectionResult:
    """Look at the one upload that the order names; a refusal is a result, not a failure."""
    with voice.stage("inspect"):
        try:
            if order.model is not None:
                return InspectionResult(found=_inspect_model(order.model, folder))
            if order.dataset is not None:
                return InspectionResult(found=_inspect_dataset(order.dataset))
        except EngineError as error:
            rejection = Rejection(code=error.code, message=error.message, hint=error.hint, node=error.node)
            return InspectionResult(rejection=rejection)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return InspectionResult(rejection=_TOO_MUCH_MEMORY)
    raise ValueError("an inspect order names a model or a dataset")


_TOO_MUCH_MEMORY = Rejection(
    code="too_much_memory",
    message="Inspecting the upload took more memory than an inspection may have.",
    hint="Fix the model's inputs to smaller sizes, or split the dataset's largest files.",
)


def _inspect_model(upload: InputFile, folder: WorkFolder) -> ModelInspection:
    path = upload.path
    if upload.format != "onnx":
        path = folder.out / CANONICAL_MODEL
        _save(_export(upload) if upload.format == "torchvision" else _joined(upload, folder), path)
    model = vet(path)
    check_bytes(model)
    as_read = folder.tmp / "model.onnx"
    _save(model, as_read)  # what every job runs has been put right
    session = load(as_read)
    analysis = analyze(model)
    _refuse_weights_that_are_no_numbers(analysis)
    try_to_run(session, analysis)
    return describe(model, analysis, path.stat().st_size)


def _refuse_weights_that_are_no_numbers(analysis: Analysis) -> None:
    """A training that diverged leaves them. Masks of minus infinity are no weights of layers."""
    graph = analysis.graph
    for node in graph.nodes:
        weights = node.input[1:] if node.op_type in LAYER_OPS | {"BatchNormalization"} else ()
        for name in weights:
            if name not in graph.constants:
                continue
            values = graph.array(name)
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise EngineError(
                    "weights_not_finite",
                    f"Weight {name!r} holds NaN or infinity: the network computes nothing.",
                    "Export a checkpoint from before the training diverged.",
                    node_label(node),
                )


def _export(upload: InputFile) -> onnx.ModelProto:
    """The named architecture with the uploaded weights."""
    from worker.engine.architectures import export_architecture  # loads torch, which other inspections need not

    details = TorchvisionDetails.model_validate(upload.details)
    return export_architecture(details.architecture, upload.path, details.num_classes, details.input_shape)


def _joined(upload: InputFile, folder: WorkFolder) -> onnx.ModelProto:
    """The model of a bundle with its weights."""
    unpacked = folder.tmp / "bundle"
    unpacked.mkdir()
    return join_bundle(upload.path, unpacked, MAX_FILE_BYTES)


def _save(model: onnx.ModelProto, destination: Path) -> None:
    if model.ByteSize() > MAX_FILE_BYTES:
        raise EngineError(
            "too_large",
            f"The model has {model.ByteSize()} bytes as one ONNX file.",
            f"At most {MAX_FILE_BYTES} bytes fit in one.",
        )
    onnx.save(model, destination)


def _inspect_dataset(upload: InputFile) -> DatasetInspection:
    facts = inspect_dataset(upload.path)
    if facts.format != upload.format and DatasetDetails.model_validate(upload.details).format_named:
        raise EngineError(
            "wrong_format", f"The file is {facts.format}, not {upload.format}.", f"Upload it as {facts.format}."
        )
    return DatasetInspection.model_validate(asdict(facts))


def describe(model: onnx.ModelProto, analysis: Analysis, size_bytes: int) -> ModelInspection:
    """The model as its owner sees it: face, cost, layers."""
    macs = analysis.macs
    layers = tuple(
        LayerInfo(
            name=layer.name,
            op=layer.op,
            channels=layer.channels,
            prunable_channels=layer.prunable_channels,
            groups=layer.groups,
            pinned_reason=layer.pinned_reason,
            macs=layer.macs,
            macs_share=layer.macs / macs if macs else 0.0,
            params=layer.params,
        )
        for layer in analysis.layers
    )
    return ModelInspection(
        ir_version=model.ir_version,
        opsets={opset.domain: opset.version for opset in model.opset_import},
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        nodes=len(model.graph.node),
        inputs=tuple(_tensor(value) for value in analysis.graph.inputs),
        outputs=tuple(_tensor(value) for value in model.graph.output),
        params=analysis.params,
        macs=macs,
        size_bytes=size_bytes,
        layers=layers,
        warnings=(*_warnings(layers), *kept_apart(model)),
    )


def _tensor(value: onnx.ValueInfoProto) -> TensorInfo:
    if not value.type.HasField("tensor_type"):
        return TensorInfo(name=value.name, dtype=value.type.WhichOneof("value") or "unknown", shape=None)
    shape = declared_shape(value)
    dtype = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
    return TensorInfo(name=value.name, dtype=dtype, shape=None if shape is None else tuple(shape))


def _warnings(layers: tuple[LayerInfo, ...]) -> list[str]:
    if not layers:
        return ["The model has no layer with weights: there is nothing to prune."]
    if not any(layer.prunable_channels for layer in layers):
        return ["No channel of this model can be pruned: see the reasons at its layers."]
    return []
