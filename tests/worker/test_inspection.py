"""An upload is inspected by a real worker, in a real child."""

from models_store.documents.job import JobState
from tests.worker.networks import convnet
from tests.worker.plane import Plane


def test_model_becomes_ready(plane: Plane) -> None:
    plane.start_worker()
    model_id, job_id = plane.upload_model(convnet().SerializeToString())
    plane.ring()
    plane.wait(job_id, JobState.SUCCEEDED)
    model = plane.model(model_id)
    assert model.state == "ready"
    assert model.onnx_key == model.blob_key
    assert model.inspection is not None
    assert [layer["name"] for layer in model.inspection["layers"]] == ["conv0", "conv1", "fc"]
    assert model.inspection["inputs"] == [{"name": "image", "dtype": "float", "shape": ["batch", 3, 12, 12]}]
