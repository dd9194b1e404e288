"""The nine public models: each becomes ready, and a data-free job cuts it to half of its MACs with a proof."""

from pathlib import Path

import pytest

from models_store.documents.job import JobState
from models_store.documents.report import Report
from tests.worker.plane import Plane

MODELS = (
    "deeplab_v3_mobilenetv2_nhwc",
    "face_rfb_320",
    "fastestdet_shufflenetv2",
    "mesonet_nhwc",
    "ocr_direction_mobilenetv3",
    "retinaface_mobilenet025",
    "super_resolution",
    "unet_117k",
    "yolox_nano",
)


@pytest.mark.shared
@pytest.mark.parametrize("name", MODELS)
def test_pruned_to_half(plane: Plane, shared: Path, name: str) -> None:
    model_id, inspection = plane.upload_model((shared / "models" / f"{name}.onnx").read_bytes())
    plane.work()
    plane.wait(inspection, JobState.SUCCEEDED)
    job_id = plane.submit(model_id=model_id, measuring={"rounds": 3})
    plane.work()
    plane.wait(job_id, JobState.SUCCEEDED)
    report = Report.model_validate(plane.report(job_id))
    assert report.proof.passed
    assert report.proof.max_relative_error <= 1e-4
    assert report.pruned.macs <= 0.5 * report.original.macs
