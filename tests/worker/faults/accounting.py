"""What must be true of a job that has ended, whatever was killed meanwhile."""

from __future__ import annotations

from models_store.documents.event import EventType
from models_store.documents.job import JobState
from models_store.jobs import MAX_ATTEMPTS
from models_store.tables import Job
from tests.worker.plane import Plane

ARTIFACTS = {"pruned.onnx", "report.html", "report.json"}


def times_ended(plane: Plane, job: Job) -> int:
    return sum(JobState(event.data["state"]).ended for event in plane.events(job.id, EventType.STATE))


def wrong_with(plane: Plane, job: Job) -> list[str]:
    """Signs of a loss or of a doubled effect; none of them may be there."""
    events = plane.events(job.id)
    attempts = [event.attempt for event in events]
    signs = {
        f"has not ended: {job.state}": not job.state.ended,
        f"failed after {job.failed_attempts} lost workers: {job.error}": job.state is JobState.FAILED
        and job.failed_attempts != MAX_ATTEMPTS,
        "its events have gaps": [event.seq for event in events] != list(range(1, len(events) + 1)),
        f"ended {times_ended(plane, job)} times": times_ended(plane, job) != 1,
        "an earlier attempt wrote after a later one began": attempts != sorted(attempts),
    }
    wrong = [sign for sign, seen in signs.items() if seen]
    return wrong + (_wrong_with_results(plane, job) if job.state is JobState.SUCCEEDED and job.kind == "prune" else [])


def _wrong_with_results(plane: Plane, job: Job) -> list[str]:
    report, artifacts = plane.report(job.id), plane.artifacts(job.id)
    if report is None or set(artifacts) != ARTIFACTS:
        return [f"has the artifacts {sorted(artifacts)}"]
    wrong = [f"{name} has no blob" for name, found in artifacts.items() if not plane.blobs.exists(found.blob_key)]
    listed = {artifact["name"]: artifact["sha256"] for artifact in report["artifacts"]}
    wrong += [f"{name} is not the report's" for name, digest in listed.items() if artifacts[name].sha256 != digest]
    return wrong + (["its report is of another attempt"] if report["attempt"] != job.attempt else [])
