"""Every criterion with every allocation and granularity that the catalogue calls compatible, through the API (issue 4).

    python -m benchmarks.combinations                   # what is missing in results/combinations.json
    python -m benchmarks.combinations --limit 50

A job each on the digits network to half of its MACs, with short searches and without finetuning: proved, measured and
reported as any other. What the catalogue calls incompatible with the data of a job (none, images without labels) is
submitted, too, and has to be refused there and then, with the reason. Rows are kept one by one.
"""

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import httpx
from rich.console import Console
from rich.progress import track

from benchmarks import machine, results
from benchmarks.zoo import cache
from espalier import demo_network
from espalier.client import Client
from espalier.serve import Service
from models_store import catalogue
from models_store.documents.job_spec import Budget, Data, Finetuning, JobSpec, Measuring

FILE = results.FOLDER / "combinations.json"
MACS_RATIO = 0.5
MAX_PROOF_ERROR = 1e-4
AT_ONCE = 4
SHORT = {"evaluations": 6, "images": 60, "calibration_images": 32, "population": 4}
"""Options of searches and of what measures, as far as a method has them."""
CHANNELS = "channels alone"
METHODS = catalogue.catalogue()

DataKind = Literal["none", "images", "labels"]
Row = dict[str, Any]


class Combination(NamedTuple):
    """The names of the methods."""

    criterion: str
    allocation: str
    granularity: str

    def __str__(self) -> str:
        return ", ".join(self)

    def methods(self) -> list[catalogue.Method]:
        kernels = [] if self.granularity == CHANNELS else [catalogue.find("granularity", self.granularity)]
        return [
            catalogue.find("criterion", self.criterion),
            catalogue.find("allocation", self.allocation),
            *kernels,
        ]

    def conflicts(self, data: DataKind) -> list[str]:
        return [sentence for _, sentence in catalogue.conflicts(self.methods(), data)]

    def body(self, model_id: str, dataset_id: str | None, *, labels: bool = True) -> dict[str, Any]:
        """Of POST /v1/jobs, not yet judged."""
        known = catalogue.find("allocation", self.allocation).options.get("properties", {})
        return {
            "model_id": model_id,
            "dataset_id": dataset_id,
            "budget": Budget(macs_ratio=MACS_RATIO).model_dump(exclude_none=True),
            "pruning": {
                "criterion": self.criterion,
                "allocation": self.allocation,
                "allocation_options": {name: value for name, value in SHORT.items() if name in known},
            },
            "kernels": None if self.granularity == CHANNELS else {"layout": self.granularity},
            "data": Data(labels=labels).model_dump(),
            "finetuning": Finetuning(epochs=0).model_dump(),
            "measuring": Measuring(rounds=3).model_dump(),
            "label": str(self),
        }


def every() -> Iterator[Combination]:
    granularities = (CHANNELS, *METHODS.of_kind("granularity"))
    kinds = (METHODS.of_kind("criterion"), METHODS.of_kind("allocation"), granularities)
    return itertools.starmap(Combination, itertools.product(*kinds))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=sys.maxsize, help="run at most so many jobs now")
    options = parser.parse_args(arguments)
    kept = results.read(FILE)
    rows: dict[str, Row] = kept.get("rows", {})
    missing = [each for each in every() if not each.conflicts("labels") and str(each) not in rows]

    def keep() -> None:
        contents = {"machine": machine.describe("onnxruntime", "torch"), "rows": rows, "refusals": refusals}
        results.write(FILE, contents, claims(rows, refusals))

    with (
        tempfile.TemporaryDirectory() as folder,
        _service(Path(folder)) as service,
        Client(service.url, api_key="") as client,
    ):
        inputs = _inputs(client)
        refusals = refused(service.url, *inputs)
        keep()
        for combination, row in ended(client, inputs, missing[: options.limit]):
            rows[str(combination)] = row
            keep()
    for claim in claims(rows, refusals):
        print(f"{'holds' if claim.holds else 'does not hold'}: {claim.name}: {claim.value} (goal: {claim.goal})")
    return 0


def _service(folder: Path) -> Service:
    settings = {**os.environ, "ESPALIER_CHILD_THREADS": "1", "ESPALIER_AUTH": "off"}
    return Service(folder, port=0, jobs=os.cpu_count() or 1, settings=settings)


def _inputs(client: Client) -> tuple[str, str]:
    """The ids of the digits network, trained once and kept in the cache, and of the digits."""
    folder = cache() / "combinations"
    folder.mkdir(parents=True, exist_ok=True)
    data = demo_network.digits()
    data.save(folder / "digits.npz")
    if not (folder / "digits.onnx").exists():
        demo_network.export(demo_network.train(data), folder / "digits.onnx")
    model = client.wait_until_ready(client.upload_model(folder / "digits.onnx"))
    return model.id, client.wait_until_ready(client.upload_dataset(folder / "digits.npz")).id


def refused(url: str, model_id: str, dataset_id: str) -> dict[str, list[str]]:
    """Of the combinations that do not go with no data, or with images alone: whether the API refuses them, and says
    every reason that the catalogue gives."""
    found: dict[str, list[str]] = {"refused": [], "taken": []}
    kinds: tuple[DataKind, ...] = ("none", "images")
    with httpx.Client(base_url=url) as http:
        for combination, data in itertools.product(every(), kinds):
            reasons = combination.conflicts(data)
            if reasons:
                body = combination.body(model_id, dataset_id if data == "images" else None, labels=False)
                answer = http.post("/v1/jobs", json=body)
                said = " ".join(error["message"] for error in answer.json().get("errors", []))
                good = answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY and all(r in said for r in reasons)
                found["refused" if good else "taken"].append(f"{combination}, data: {data}")
    return found


def ended(client: Client, inputs: tuple[str, str], wanted: Sequence[Combination]) -> Iterator[tuple[Combination, Row]]:
    """Each combination with what became of its job, a few jobs at once."""
    waiting = list(reversed(wanted))
    running: dict[str, Combination] = {}
    for _ in track(range(len(wanted)), "combinations", console=Console(stderr=True)):
        while True:
            while waiting and len(running) < AT_ONCE:
                combination = waiting.pop()
                job = client.create_job(JobSpec.model_validate(combination.body(*inputs)))
                running[job.id] = combination
            over = next((job for job in map(client.get_job, running) if job.state.ended), None)
            if over is not None:
                break
            time.sleep(0.1)
        row: Row = {"state": str(over.state), "error": over.error.message if over.error else None}
        if over.state == "succeeded":
            report = client.report(over.id)
            row["macs_ratio"] = round(report.pruned.macs / report.original.macs, 4)
            row["proof_error"] = report.proof.max_relative_error
            row["proved"] = report.proof.passed
        yield running.pop(over.id), row


def claims(rows: dict[str, Row], refusals: dict[str, list[str]]) -> list[results.Claim]:
    compatible = [str(each) for each in every() if not each.conflicts("labels")]
    done = [name for name in compatible if name in rows]
    good = [name for name in done if _is_good(rows[name])]
    taken = refusals["taken"]
    return [
        results.Claim(
            "criterion x allocation x granularity, all that are compatible, end to end through the API",
            4,
            f"{len(good)} of {len(compatible)} succeeded and were proved; {len(done)} were run",
            "all",
            len(good) == len(compatible),
        ),
        results.Claim(
            "those that do not go with a job's data are refused at submission with every reason",
            4,
            f"{len(refusals['refused'])} of {len(refusals['refused']) + len(taken)}",
            "all",
            bool(refusals["refused"]) and not taken,
        ),
    ]


def _is_good(row: Row) -> bool:
    return row["state"] == "succeeded" and bool(row["proved"]) and row["proof_error"] <= MAX_PROOF_ERROR


if __name__ == "__main__":
    sys.exit(main())
