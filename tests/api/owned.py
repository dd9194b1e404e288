"""One thing of each kind that a project can have."""

from models_store.projects import DEFAULT_PROJECT
from tests.api.reports import report_document
from tests.api.running_api import Service

NPZ = b"PK\x03\x04" + bytes(22) + b"\x05\x00\x00\x00x.npyPK\x05\x06" + bytes(18)
BUDGET = {"macs_ratio": 0.5}
TUS = {"Tus-Resumable": "1.0.0", "Upload-Length": "50", "Upload-Metadata": "kind bW9kZWw="}


def owned_things(service: Service) -> dict[str, str]:
    """One thing of each kind, by the names of the path parameters that they fill."""
    job_id = service.start_job()
    service.worker.succeed(service.worker.claim(), report_document(), {"pruned.onnx": b"x", "report.html": b"x"})
    model_id = service.http.get(f"/v1/jobs/{job_id}").json()["model_id"]
    dataset_id = service.http.put("/v1/datasets/data", content=NPZ).raise_for_status().json()["id"]
    service.worker.inspect()
    pipeline = {"name": "p", "job": {"model_id": model_id, "budget": BUDGET}, "gates": []}
    pipeline_id = service.http.post("/v1/pipelines", json=pipeline).json()["id"]
    run_id = service.http.post(f"/v1/pipelines/{pipeline_id}/runs", json={}).json()["id"]
    webhook_id = service.http.post("/v1/webhooks", json={"url": "https://example.org/"}).json()["id"]
    return {
        "model": model_id,
        "dataset": dataset_id,
        "job_id": job_id,
        "name": "pruned.onnx",
        "pipeline_id": pipeline_id,
        "run_id": run_id,
        "webhook_id": webhook_id,
        "delivery_id": service.http.post(f"/v1/webhooks/{webhook_id}/test").json()["id"],
        "key_id": service.http.post("/v1/keys", json={"name": "k"}).json()["id"],
        "project_id": DEFAULT_PROJECT,
        "upload_id": service.http.post("/v1/uploads", headers=TUS).json()["id"],
        "source": "generic",
    }
