"""The other side of the store: what a worker does to the rows, done through the repositories that workers use."""

from collections.abc import Mapping
from typing import Any

from onnx import TensorProto, helper

from models_store.blobs import BlobStore
from models_store.database import Database
from models_store.datasets import DatasetRepository
from models_store.documents.event import ErrorClass, EventType, JobError
from models_store.documents.inspection import DatasetInspection, LayerInfo, ModelInspection, TensorInfo
from models_store.documents.job_spec import JobKind
from models_store.jobs import Claim, JobRepository, NewArtifact
from models_store.models import ModelRepository

LAYER = LayerInfo(
    name="conv1", op="Conv", channels=16, prunable_channels=16, groups=(0,), macs=1000, macs_share=1.0, params=448
)
MODEL_INSPECTION = ModelInspection(
    ir_version=10,
    opsets={"": 18},
    producer="test",
    nodes=1,
    inputs=(TensorInfo(name="x", dtype="float32", shape=("N", 3, 8, 8)),),
    outputs=(TensorInfo(name="y", dtype="float32", shape=("N", 16, 8, 8)),),
    params=448,
    macs=1000,
    size_bytes=2000,
    layers=(LAYER,),
)
DATASET_INSPECTION = DatasetInspection(
    format="npz", classes=("0", "1"), samples=4, samples_per_class=(2, 2), test_samples=0, shapes=("8x8x1",)
)
BAD_MODEL = JobError(
    code="unknown_op", error_class=ErrorClass.USER, message="Node 'n' is unknown.", hint="Export it again."
)


def onnx_bytes(name: str = "x") -> bytes:
    """A whole little ONNX model."""
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])]
    graph = helper.make_graph([helper.make_node("Relu", [name], ["y"])], "graph", inputs, outputs)
    return helper.make_model(graph).SerializeToString()


class Worker:
    """Claims jobs and moves them on, each step in a transaction of its own."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs

    def claim(self) -> Claim:
        with self._database.session() as session:
            claim = JobRepository(session).claim("test-worker")
        assert claim is not None, "no job is queued"
        return claim

    def inspect(
        self,
        *,
        reject: bool = False,
        model: ModelInspection = MODEL_INSPECTION,
        dataset: DatasetInspection = DATASET_INSPECTION,
    ) -> None:
        """Do the inspection that is first in line."""
        claim = self.claim()
        assert claim.kind == JobKind.INSPECT
        with self._database.session() as session:
            jobs = JobRepository(session)
            if reject:
                jobs.fail(claim, BAD_MODEL)
                return
            jobs.hold(claim)
            if claim.model_id is not None:
                ModelRepository(session).mark_ready(
                    claim.model_id, model.model_dump(mode="json"), "sha256/00/" + "0" * 64
                )
            if claim.dataset_id is not None:
                DatasetRepository(session).mark_ready(claim.dataset_id, dataset.model_dump(mode="json"))
            jobs.succeed(claim)

    def log(self, claim: Claim, *messages: str) -> None:
        with self._database.session() as session:
            events = [(EventType.LOG, {"level": "info", "message": message}) for message in messages]
            JobRepository(session).append_events(claim, events)

    def succeed(
        self, claim: Claim, report: Mapping[str, Any] | None = None, files: Mapping[str, bytes] | None = None
    ) -> None:
        artifacts = []
        for name, content in (files or {}).items():
            path = self._blobs.incoming_dir / name
            path.write_bytes(content)
            blob = self._blobs.adopt(path)
            media_type = "text/html; charset=utf-8" if name.endswith(".html") else "application/octet-stream"
            artifacts.append(NewArtifact(name, media_type, blob.size_bytes, blob.sha256, blob.key))
        with self._database.session() as session:
            JobRepository(session).succeed(claim, report, artifacts)

    def fail(self, claim: Claim) -> None:
        with self._database.session() as session:
            JobRepository(session).fail(claim, BAD_MODEL)

    def reap(self) -> None:
        """What the sweeper does to jobs whose worker has fallen silent."""
        with self._database.session() as session:
            JobRepository(session).reap_expired()
