"""A run in which everything that can be killed is, over and over, while users send jobs; and what came of it."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from subprocess import Popen

import httpx
from sqlalchemy import func, select

from models_store.documents.job import JobState
from models_store.tables import InputState, Job, JobCheckpoint, Model
from tests.waiting import until
from tests.worker.faults.accounting import times_ended, wrong_with
from tests.worker.networks import convnet
from tests.worker.plane import Plane


@dataclass(frozen=True)
class Scale:
    """Every fourth job is a prune job, the others are uploads to be inspected."""

    jobs: int
    workers: int
    kills: int
    api_restarts: int
    broker_wipes: int
    timeout_s: float


@dataclass
class KillRun:
    """The run itself: `run`, then `figures`, then `violations`, which must be none."""

    plane: Plane
    scale: Scale
    seed: int = 0
    acknowledged: list[str] = field(default_factory=list)
    uploaded: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    failure: Exception | None = None

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)  # noqa: S311 - a run that can be repeated
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]

    def run(self) -> None:
        self.inputs = self.plane.ready_inputs()
        self.api = self._start_api()
        self.sweeper = self.plane.start_sweeper()
        self.workers = [self.plane.start_worker() for _ in range(self.scale.workers)]
        users = threading.Thread(target=self._send_all)
        users.start()
        self._break_things()
        users.join(self.scale.timeout_s)
        if self.failure is not None:
            raise self.failure
        until(self._all_ended, self.scale.timeout_s, lambda: f"all jobs to end: {self.plane.logs()}")
        # Those that wrote last may still be putting things away.
        until(lambda: not self._orders(), 60, "the work folders to go")

    def figures(self) -> dict[str, int]:
        jobs = self._jobs()
        return {
            "jobs": len(jobs),
            "acknowledged": len(self.acknowledged) + len(self.uploaded),
            **dict(self.done),
            "attempts": sum(job.attempt for job in jobs),
            **{state.value: count for state, count in Counter(job.state for job in jobs).items()},
            "lost": sum(not job.state.ended for job in jobs) + len(set(self.acknowledged) - {job.id for job in jobs}),
            "doubled": sum(times_ended(self.plane, job) != 1 for job in jobs),
        }

    def violations(self) -> list[str]:
        """Everything that is not as it must be, whatever was killed when."""
        jobs = self._jobs()
        found = [f"{missing} was acknowledged and is gone" for missing in set(self.acknowledged) - {j.id for j in jobs}]
        for job in jobs:
            found += [f"{job.id}: {wrong}" for wrong in wrong_with(self.plane, job)]
        with self.plane.database.session(read_only=True) as session:
            kept = set(session.scalars(select(JobCheckpoint.job_id)))
            settled = set(session.scalars(select(Model.id).where(Model.state != InputState.INSPECTING)))
        found += [f"{model} was acknowledged and is not settled" for model in set(self.uploaded) - settled]
        found += [f"{job.id} succeeded and has a checkpoint" for job in jobs if _succeeded(job) and job.id in kept]
        return found

    # Users

    def _send_all(self) -> None:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30) as http:
                for number in range(self.scale.jobs):
                    self._send(http, number)
        except Exception as error:  # re-raised by the main thread
            self.failure = error

    def _send(self, http: httpx.Client, number: int) -> None:
        """Until it is acknowledged; a request that was cut off is sent again only if nothing came of it."""
        deadline = time.monotonic() + self.scale.timeout_s
        while True:
            try:
                if number % 4 == 0:
                    body = {"model_id": self.inputs["model_id"], "budget": {"macs_ratio": 0.5}, "label": str(number)}
                    answer = http.post("/v1/jobs", json=body | {"measuring": {"rounds": 3}})
                else:
                    answer = http.put(f"/v1/models/net{number}", content=convnet(seed=number).SerializeToString())
                answer.raise_for_status()
            except httpx.TransportError:
                assert time.monotonic() < deadline, "the API did not come back"
                time.sleep(0.05)
                if not self._arrived(number):
                    continue
            else:
                (self.acknowledged if number % 4 == 0 else self.uploaded).append(answer.json()["id"])
            return

    def _arrived(self, number: int) -> bool:
        with self.plane.database.session(read_only=True) as session:
            return session.scalar(select(Job.id).where(Job.label == str(number))) is not None

    # Breaking

    def _break_things(self) -> None:
        """Spread over the run: the next blow falls when so many jobs have ended, and a moment later."""
        blows = ["kills"] * self.scale.kills
        blows += ["api_restarts"] * self.scale.api_restarts + ["broker_wipes"] * self.scale.broker_wipes
        self.random.shuffle(blows)
        for number, blow in enumerate(blows):
            enough = number * self.scale.jobs // (len(blows) + self.scale.workers)
            until(lambda enough=enough: self.failure or self._ended() >= enough, self.scale.timeout_s, "progress")
            time.sleep(self.random.random())
            getattr(self, f"_{blow}")()
            self.done[blow] += 1

    def _kills(self) -> None:
        place = self.random.randrange(len(self.workers))
        _kill(self.workers[place])
        self.workers[place] = self.plane.start_worker()

    def _api_restarts(self) -> None:
        _kill(self.api)
        _kill(self.sweeper)
        self.api, self.sweeper = self._start_api(), self.plane.start_sweeper()

    def _broker_wipes(self) -> None:
        self.plane.broker.client.flushall()

    def _start_api(self) -> Popen[bytes]:
        return self.plane.start("app", port=self.port)

    # Looking

    def _jobs(self) -> list[Job]:
        with self.plane.database.session(read_only=True) as session:
            return list(session.scalars(select(Job)).all())

    def _orders(self) -> bool:
        """Whether a work folder still has an order; folders may go while they are walked, which os.walk passes over."""
        return any("order.json" in files for _, _, files in os.walk(self.plane.folder / "work"))

    def _all_ended(self) -> bool:
        return self._ended() >= self.scale.jobs

    def _ended(self) -> int:
        ended = [state for state in JobState if state.ended]
        with self.plane.database.session(read_only=True) as session:
            return session.scalar(select(func.count()).select_from(Job).where(Job.state.in_(ended))) or 0


def _succeeded(job: Job) -> bool:
    return job.state is JobState.SUCCEEDED


def _kill(process: Popen[bytes]) -> None:
    process.kill()
    process.wait()
