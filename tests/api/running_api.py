"""A running API as tests use it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import httpx

from app.settings import ApiSettings
from models_store.blobs import BlobStore
from models_store.database import Database
from models_store.documents.inspection import DatasetInspection
from tests.api.store_side import DATASET_INSPECTION, Worker, onnx_bytes


@dataclass(frozen=True)
class Service:
    """A running API: over HTTP as its users see it, and the store behind it as a worker sees it."""

    http: httpx.Client
    url: str
    settings: ApiSettings
    database: Database
    blobs: BlobStore

    @property
    def worker(self) -> Worker:
        return Worker(self.database, self.blobs)

    def upload_model(self, name: str = "net") -> str:
        """The id of a new model, still `inspecting`."""
        response = self.http.post("/v1/models", files={"file": (f"{name}.onnx", onnx_bytes())}, data={"name": name})
        assert response.status_code == 201, response.text
        return response.json()["id"]

    def ready_model(self) -> str:
        """The id of a new model that jobs may use."""
        model_id = self.upload_model()
        self.worker.inspect()
        return model_id

    def ready_dataset(self, dataset: DatasetInspection = DATASET_INSPECTION) -> str:
        """The id of a new dataset that jobs may use, of which the inspection found this."""
        npz = b"PK\x03\x04" + bytes(22) + b"\x05\x00\x00\x00x.npyPK\x05\x06" + bytes(18)
        response = self.http.put("/v1/datasets/data", content=npz)
        assert response.status_code == 201, response.text
        self.worker.inspect(dataset=dataset)
        return response.json()["id"]

    def start_job(self, **spec: object) -> str:
        """The id of a new job on a new model."""
        body = {"model_id": self.ready_model(), "budget": {"macs_ratio": 0.5}} | spec
        response = self.http.post("/v1/jobs", json=body)
        assert response.status_code == 202, response.text
        return response.json()["id"]

    def incoming(self) -> list[str]:
        """Files of uploads that are neither complete nor given up."""
        return [path.name for path in self.blobs.incoming_dir.iterdir()]


Serve = Callable[..., AbstractContextManager[Service]]
