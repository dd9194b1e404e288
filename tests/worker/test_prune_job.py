"""A prune job from its row to its artifacts."""

import hashlib
import json

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from models_store.documents.event import STAGES, EventType
from models_store.documents.job import JobState
from models_store.documents.report import Report
from tests import cifar_files
from tests.worker.networks import coloured_squares, convnet, unlabelled
from tests.worker.plane import Plane

QUICK = {"rounds": 3}


@pytest.mark.parametrize(("size", "told"), [(16, "240 of 240 images did not have the 12 x 12 pixels"), (12, "")])
def test_images_that_were_resized_are_told_of(plane: Plane, size: int, told: str) -> None:
    model_id, _ = plane.upload_model(convnet(size=12).SerializeToString())
    dataset_id, _ = plane.upload_dataset(coloured_squares(size=size), "npz")
    plane.work()
    job_id = plane.submit(model_id=model_id, dataset_id=dataset_id, finetuning={"epochs": 0}, measuring=QUICK)
    plane.work()
    plane.wait(job_id, JobState.SUCCEEDED)
    warnings = Report.model_validate(plane.report(job_id)).warnings
    found = [line for line in warnings if "images did not have" in line]
    assert [line[: len(told)] for line in found] == ([told] if told else [])


def test_with_data(plane: Plane) -> None:
    network = convnet()
    network.metadata_props.add(key="made by", value="a test")
    model_id, first = plane.upload_model(network.SerializeToString())
    dataset_id, second = plane.upload_dataset(coloured_squares(), "npz")
    plane.work()
    plane.wait(first, JobState.SUCCEEDED)
    plane.wait(second, JobState.SUCCEEDED)

    job_id = plane.submit(
        model_id=model_id, dataset_id=dataset_id, finetuning={"epochs": 2, "batch_size": 32}, measuring=QUICK
    )
    plane.work()
    job = plane.wait(job_id, JobState.SUCCEEDED)

    assert {stage["name"] for stage in job.stages if stage["state"] != "done"} == {"iterate", "regularise"}
    assert job.progress == 1.0
    report = Report.model_validate(plane.report(job_id))
    assert report.pruned.macs <= 0.5 * report.original.macs
    assert report.budget[0].verdict == "met"
    assert report.proof.passed
    assert report.proof.max_relative_error <= 1e-4
    assert report.parity is not None
    assert report.parity.max_relative_error <= 1e-4
    assert report.recovery is not None
    assert report.recovery.layers
    assert report.training is not None
    assert [row.epoch for row in report.training.epochs] == [0, 1, 2]
    assert report.accuracy is not None
    assert report.machine.sandbox == "T1"
    assert report.machine.versions.keys() >= {"espalier", "onnxruntime", "torch", "pillow"}
    assert report.onnx_sha256 == report.model_sha256 == hashlib.sha256(network.SerializeToString()).hexdigest()
    before, after = report.original.peak_memory_bytes, report.pruned.peak_memory_bytes
    assert before is not None
    assert after is not None
    assert all((row.time_original_ms or 0) > 0 and (row.time_pruned_ms or 0) > 0 for row in report.layers)
    assert report.original.size_bytes < after <= 1.2 * before < 100e6
    assert set(report.stage_seconds) == set(STAGES) - {"iterate", "regularise", "report"}

    artifacts = plane.artifacts(job_id)
    assert set(artifacts) == {"pruned.onnx", "report.html", "report.json"}
    listed = {artifact.name: artifact.sha256 for artifact in report.artifacts}
    assert listed == {name: artifacts[name].sha256 for name in ("pruned.onnx", "report.html")}
    stored = {name: b"".join(plane.blobs.stream(artifact.blob_key)) for name, artifact in artifacts.items()}
    assert json.loads(stored["report.json"]) == json.loads(report.model_dump_json())
    assert stored["report.html"].startswith(b"<!DOCTYPE html>")
    pruned = onnx.load_model_from_string(stored["pruned.onnx"])
    assert [p.value for p in pruned.metadata_props] == ["a test"]
    assert [i.name for i in pruned.graph.input] == ["image"]
    assert pruned.opset_import == network.opset_import
    session = onnxruntime.InferenceSession(stored["pruned.onnx"])
    assert session.run(None, {"image": np.zeros((5, 3, 12, 12), np.float32)})[0].shape == (5, 4)

    epochs = [event.data for event in plane.events(job_id, EventType.METRIC) if event.data["stage"] == "finetune"]
    assert [epoch["epoch"] for epoch in epochs] == [0, 1, 2]
    assert plane.states(job_id) == ["queued", "running", "succeeded"]


def test_with_an_archive_of_batches(plane: Plane) -> None:
    batches = {"data_batch_1": cifar_files.images_of(80), "test_batch": cifar_files.images_of(24, seed=1)}
    archive = cifar_files.packed(cifar_files.python_files(batches, cifar_files.dumped_by_python_2, fine=False))
    model_id, _ = plane.upload_model(convnet(size=16).SerializeToString())
    dataset_id, second = plane.upload_dataset(archive, "image_folder", format_named=False)
    plane.work()
    plane.wait(second, JobState.SUCCEEDED)
    job_id = plane.submit(
        model_id=model_id, dataset_id=dataset_id, finetuning={"epochs": 1, "batch_size": 16}, measuring=QUICK
    )
    plane.work()
    plane.wait(job_id, JobState.SUCCEEDED)
    report = Report.model_validate(plane.report(job_id))
    assert report.accuracy is not None
    assert report.accuracy.final.samples == 24


@pytest.mark.parametrize("labelled", [False, True])
def test_with_images_whose_labels_are_not_there_or_not_used(plane: Plane, labelled: bool) -> None:
    model_id, first = plane.upload_model(convnet().SerializeToString())
    dataset_id, second = plane.upload_dataset(coloured_squares() if labelled else unlabelled(coloured_squares()), "npz")
    plane.work()
    plane.wait(first, JobState.SUCCEEDED)
    plane.wait(second, JobState.SUCCEEDED)
    job_id = plane.submit(
        model_id=model_id,
        dataset_id=dataset_id,
        data={"labels": False} if labelled else {},
        recovery={"reconstruction": False},
        finetuning={"epochs": 6, "batch_size": 16, "optimizer": "adamw", "learning_rate": 0.003},
        measuring=QUICK,
    )
    plane.work()
    job = plane.wait(job_id, JobState.SUCCEEDED)
    assert {stage["name"] for stage in job.stages if stage["state"] != "done"} == {"iterate", "regularise"}
    report = Report.model_validate(plane.report(job_id))
    assert report.accuracy is None
    assert report.training is not None
    assert all(row.validation_top1 is None for row in report.training.epochs)
    assert report.training.best_epoch > 0
    assert report.fidelity is not None
    cut, final = report.fidelity.after_cut.error, report.fidelity.final.error
    assert cut is not None
    assert final is not None
    assert final < 0.5 * cut
    page = b"".join(plane.blobs.stream(plane.artifacts(job_id)["report.html"].blob_key)).decode()
    assert "Outputs against the original" in page
    assert "logits" in page


def with_an_embedding() -> onnx.ModelProto:
    """A classifier that gives three numbers, fewer than it knows classes, before its probabilities."""
    model = convnet()
    graph, weight = model.graph, np.random.default_rng(1).normal(0, 32**-0.5, (3, 32)).astype(np.float32)
    graph.initializer.append(numpy_helper.from_array(weight, "embed.weight"))
    graph.node.append(helper.make_node("Gemm", ["flat", "embed.weight"], ["embedding"], "embed", transB=1))
    graph.node.append(helper.make_node("Softmax", ["logits"], ["probabilities"]))
    graph.output[0].name = "probabilities"
    graph.output.insert(0, helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 3]))
    return model


def test_labels_and_further_outputs(plane: Plane) -> None:
    """The class scores are found behind another output, which finetuning leaves what it was."""
    model_id, _ = plane.upload_model(with_an_embedding().SerializeToString())
    dataset_id, _ = plane.upload_dataset(coloured_squares(), "npz")
    plane.work()
    job_id = plane.submit(
        model_id=model_id,
        dataset_id=dataset_id,
        pruning={"criterion": "taylor"},
        finetuning={"epochs": 6, "batch_size": 16, "optimizer": "adamw", "learning_rate": 0.003},
        measuring=QUICK,
    )
    plane.work()
    plane.wait(job_id, JobState.SUCCEEDED)
    report = Report.model_validate(plane.report(job_id))
    assert report.accuracy is not None
    assert report.accuracy.final.top1 > 0.9
    assert not any("class scores" in warning for warning in report.warnings)
    assert report.fidelity is not None
    assert [output.name for output in report.fidelity.final.outputs] == ["embedding"]
    assert report.fidelity.final.error is not None
    assert report.fidelity.final.error < 0.2
    page = b"".join(plane.blobs.stream(plane.artifacts(job_id)["report.html"].blob_key)).decode()
    assert "Outputs against the original" in page


@pytest.mark.parametrize("method", ["swd", "greg"])
def test_trained_before_the_cut_to_do_without_what_goes(plane: Plane, method: str) -> None:
    """Right after the cut the network is about as good as before it: what went had vanished already."""
    asked = {"method": method, "epochs": 12, "last": 5.0}
    recovery = {"bn_reestimation": False, "reconstruction": False}
    finetuning = {"epochs": 0, "batch_size": 16, "learning_rate": 0.02}
    job_id = plane.submit(
        **plane.ready_inputs(), regularisation=asked, recovery=recovery, finetuning=finetuning, measuring=QUICK
    )
    plane.work()
    job = plane.wait(job_id, JobState.SUCCEEDED)
    assert {stage["name"] for stage in job.stages if stage["state"] == "skipped"} == {"iterate", "recover", "finetune"}
    report = Report.model_validate(plane.report(job_id))
    assert report.proof.passed
    assert report.regularisation is not None
    assert report.regularisation.best_epoch == 12
    assert report.doomed_left is not None
    assert 0 < report.doomed_left < 0.1
    assert not any("vanish" in warning for warning in report.warnings)
    assert report.accuracy is not None
    assert report.accuracy.after_cut.top1 > 0.9
    assert report.accuracy.after_cut.loss < 2 * report.regularisation.epochs[-1].validation_loss + 0.1
    assert b"Training before the cut" in b"".join(plane.blobs.stream(plane.artifacts(job_id)["report.html"].blob_key))


def test_weights_that_did_not_vanish_before_the_cut_are_told(plane: Plane) -> None:
    asked = {"method": "greg", "epochs": 1, "last": 0.1}
    finetuning = {"epochs": 0, "batch_size": 16, "learning_rate": 0.02}
    job_id = plane.submit(**plane.ready_inputs(), regularisation=asked, finetuning=finetuning, measuring=QUICK)
    plane.work()
    plane.wait(job_id, JobState.SUCCEEDED)
    report = Report.model_validate(plane.report(job_id))
    assert report.doomed_left is not None
    assert 0.5 < report.doomed_left <= 1.2
    (told,) = (warning for warning in report.warnings if "vanish" in warning)
    assert f"left {report.doomed_left:.0%} of the weights" in told


def test_what_was_trained_before_the_cut_is_not_refitted_to_what_it_was(plane: Plane) -> None:
    asked = {"method": "swd", "epochs": 12, "last": 5.0}
    finetuning = {"epochs": 0, "batch_size": 16, "learning_rate": 0.02}
    job_id = plane.submit(**plane.ready_inputs(), regularisation=asked, finetuning=finetuning, measuring=QUICK)
    plane.work()
    plane.wait(job_id, JobState.SUCCEEDED)
    report = Report.model_validate(plane.report(job_id))
    assert report.recovery is not None
    assert report.recovery.images > 0
    assert report.recovery.layers == ()  # all that went had vanished: the layers compute what they did
    assert report.accuracy is not None
    assert report.accuracy.final.loss == pytest.approx(report.accuracy.after_cut.loss, rel=0.02)


def test_without_data(plane: Plane) -> None:
    job_id = plane.submit(model_id=plane.ready_inputs()["model_id"], measuring=QUICK)
    plane.work()
    job = plane.wait(job_id, JobState.SUCCEEDED)
    assert {stage["name"] for stage in job.stages if stage["state"] == "skipped"} == {
        *("iterate", "regularise", "recover", "finetune", "evaluate")
    }
    report = Report.model_validate(plane.report(job_id))
    assert report.accuracy is None
    assert report.training is None
    assert report.parity is None
    assert report.proof.passed
    assert len(report.latency) == 1


def test_recovery_without_training(plane: Plane) -> None:
    """BN re-estimation and reconstruction need images alone: neither labels nor epochs."""
    reports = {}
    for name in ("bn_reestimation", "reconstruction"):
        job_id = plane.submit(
            **plane.ready_inputs(),
            recovery={"reconstruction": name == "reconstruction", "calibration_images": 96},
            finetuning={"epochs": 0},
            export={"float16": True, "int8": name == "reconstruction"},
            measuring=QUICK,
        )
        plane.work()
        job = plane.wait(job_id, JobState.SUCCEEDED)
        assert {stage["name"] for stage in job.stages if stage["state"] == "skipped"} == {
            "iterate",
            "regularise",
            "finetune",
        }
        reports[name] = Report.model_validate(plane.report(job_id))
        stored = {n: b"".join(plane.blobs.stream(a.blob_key)) for n, a in plane.artifacts(job_id).items()}
        assert b"Recovery before training" in stored["report.html"]
    for report in reports.values():
        assert report.recovery is not None
        assert report.recovery.images == 96
        assert report.recovery.norms == 2
        assert report.accuracy is not None
        assert report.accuracy.final == report.accuracy.after_recovery
        assert report.accuracy.after_recovery != report.accuracy.after_cut
        assert report.parity is not None
    renormed, refitted = (report.recovery for report in reports.values())
    assert renormed is not None
    assert refitted is not None
    assert renormed.layers == ()
    assert {layer.name for layer in refitted.layers} == {"conv1", "fc"}
    assert all(layer.error_after < layer.error_before for layer in refitted.layers)
    files = {file.name: file for file in reports["reconstruction"].exports}
    assert set(files) == {"pruned.fp16.onnx", "pruned.int8.onnx"}
    assert all(file.max_relative_error is not None and file.max_relative_error < 0.2 for file in files.values())
    assert all(file.top1 is not None for file in files.values())
    assert set(files) < {artifact.name for artifact in reports["reconstruction"].artifacts}


def test_a_file_that_cannot_be_made_does_not_cost_the_job(plane: Plane) -> None:
    """Logits beyond float16's numbers. A twentieth is left: its layers take less time, whoever else computes."""
    network = convnet(width=128)
    weight = next(tensor for tensor in network.graph.initializer if tensor.name == "fc.weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1e8), weight.name))
    model_id, inspection = plane.upload_model(network.SerializeToString())
    plane.work()
    plane.wait(inspection, JobState.SUCCEEDED)
    asked = {"float16": True, "float16_io": True}
    job_id = plane.submit(model_id=model_id, budget={"macs_ratio": 0.05}, export=asked, measuring=QUICK)
    plane.work()
    plane.wait(job_id, JobState.SUCCEEDED)
    report = Report.model_validate(plane.report(job_id))
    assert report.exports == ()
    (missing,) = report.missing_exports
    assert (missing.name, missing.kind) == ("pruned.fp16.onnx", "float16")
    assert "differs" in missing.reason
    assert report.warnings[0] == f"pruned.fp16.onnx could not be made: {missing.reason}"
    assert set(plane.artifacts(job_id)) == {"pruned.onnx", "report.html", "report.json"}
    before, after = (
        sum(getattr(layer, f"time_{which}_ms") for layer in report.layers) for which in ("original", "pruned")
    )
    assert after < before
