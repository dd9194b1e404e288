"""export: hand out the final model, and check that its face is still the original's."""

from __future__ import annotations

import shutil

import onnx

from models_store.documents.base import Document
from models_store.documents.export_spec import ExportedFile, MissingFile
from models_store.documents.report import Artifact, Cost
from worker.engine.graph import load_model
from worker.engine.masks.files import load_masks
from worker.engine.masks.weights import broken_masks
from worker.runner.artifact import describe
from worker.runner.cost import cost
from worker.runner.diagnosis import BrokenPromise
from worker.runner.further_files import further_files
from worker.runner.stages import prune
from worker.runner.trial import load
from worker.runner.workbench import Stage, Workbench

NAME = "pruned.onnx"


class Exported(Document):
    """The files that the job hands out."""

    artifact: Artifact
    further: tuple[ExportedFile, ...]
    further_artifacts: tuple[Artifact, ...]
    missing: tuple[MissingFile, ...] = ()
    cost: Cost


def run(bench: Workbench) -> Exported:
    path = bench.folder.out / NAME
    shutil.copyfile(bench.best_path, path)
    _check_face(bench.original, load_model(path))
    load(path)
    _check_masks(bench, load_model(path))
    before = bench.read(prune.STAGE).cost
    asked_for = tuple(further_files(bench, path))
    further = tuple(file for file in asked_for if isinstance(file, ExportedFile))
    return Exported(
        artifact=describe(path),
        further=further,
        further_artifacts=tuple(describe(bench.folder.out / file.name) for file in further),
        missing=tuple(file for file in asked_for if isinstance(file, MissingFile)),
        cost=cost(before.macs, before.params, path),
    )


def _check_face(original: onnx.ModelProto, exported: onnx.ModelProto) -> None:
    """What a model's users rely on: inputs, outputs, opsets and metadata. Raises BrokenPromise."""
    weights = {tensor.name for tensor in original.graph.initializer}
    kept_weights = {tensor.name for tensor in exported.graph.initializer}
    faces = (
        ("inputs", _inputs(original, weights), _inputs(exported, kept_weights)),
        ("outputs", list(original.graph.output), list(exported.graph.output)),
        ("opsets", list(original.opset_import), list(exported.opset_import)),
        ("metadata", list(original.metadata_props), list(exported.metadata_props)),
    )
    for name, before, after in faces:
        if before != after:
            raise BrokenPromise("face_changed", f"The exported model's {name} are not those of the original.")


def _check_masks(bench: Workbench, exported: onnx.ModelProto) -> None:
    """Masked weights are exactly zero in the file. Raises BrokenPromise."""
    broken = broken_masks(exported, load_masks(bench.masks_path))
    if broken:
        raise BrokenPromise("mask_broken", f"Masked weights are not zero in the exported model: {', '.join(broken)}.")


def _inputs(model: onnx.ModelProto, weights: set[str]) -> list[onnx.ValueInfoProto]:
    return [value for value in model.graph.input if value.name not in weights]


STAGE = Stage("export", Exported, run)
