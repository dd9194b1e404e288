"""What a job chooses where it is left to choose, against `l2` and `uniform`, before any training (issue 4).

    python -m benchmarks.defaults

ResNet-56 with its option A shortcuts on CIFAR-10, as a job prunes it: the methods that its spec is completed with,
channel counts rounded as by default, reconstruction on 1,024 images. Top-1 in ONNX Runtime on the 5,000 images of
`cifar10_val`, which choose nothing. Needs the shared folder beside the checkout. Rows are kept one by one.
"""

import time
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks import machine, results
from benchmarks.accuracy_bench import Bench, Settings
from models_store.documents.job_spec import Budget, JobSpec, Pruning
from worker.engine.allocation import allocate, latency_limit, macs_limit, measure_table
from worker.engine.criteria import Calibration, score
from worker.engine.graph import analyze
from worker.engine.recovery import calibration_batches, reconstruct
from worker.engine.surgery import prune
from worker.engine.torch_form import build

FILE = results.FOLDER / "defaults.json"
BASE = "resnet56"
BUDGETS = (Budget(macs_ratio=0.5), Budget(macs_ratio=0.333), Budget(latency_ratio=0.75), Budget(latency_ratio=0.6))
BEFORE = Pruning(criterion="l2", allocation="uniform")
SETTINGS = Settings(threads=torch.get_num_threads(), calibration_images=1024)

Row = dict[str, Any]


class Job:
    """The base as jobs with images prune it."""

    def __init__(self) -> None:
        self.bench = Bench(BASE, "option_a", 0, SETTINGS)
        self.analysis = analyze(self.bench.model)
        self.table = measure_table(self.analysis)

    def row(self, budget: Budget, asked_for: Pruning) -> Row:
        spec = JobSpec(model_id=f"mdl_{0:032x}", dataset_id=f"dst_{0:032x}", budget=budget, pruning=asked_for)
        methods, start = spec.pruning.methods(), time.monotonic()
        (name, goal), *_ = budget.lines().items()
        limit = macs_limit(self.analysis, goal) if name == "macs_ratio" else latency_limit(self.table, goal)
        found = allocate(
            self.analysis,
            score(
                self.analysis,
                methods["criterion"].name,
                spec.pruning.criterion_options,
                calibration=self._images(spec.pruning.criterion_options.get("calibration_images")),
            ),
            [limit],
            method=methods["allocation"].name,
            options=spec.pruning.allocation_options,
            round_to=spec.pruning.round_to,
            min_ratio=spec.pruning.min_ratio,
            table=lambda: self.table,
            dataset=lambda: self.bench.data,
        )
        chosen_s = time.monotonic() - start
        form = build(prune(self.analysis, found.plan))
        data, forms = self.bench.data, (form, self.bench.original)
        batches = calibration_batches(data.train, SETTINGS.calibration_images, forms)
        reconstruct(self.analysis, found.plan, self.bench.original, form, batches)
        return {
            "budget": f"{name} {goal:g}",
            "methods": f"{methods['criterion'].name}, {methods['allocation'].name}",
            "macs_ratio": round(found.macs / self.analysis.macs, 4),
            "seconds_to_choose": round(chosen_s, 1),
            "top1": self.bench.accuracy(form.write_back()),
        }

    def _images(self, count: object) -> Calibration | None:
        if not isinstance(count, int):
            return None
        return Calibration(*next(self.bench.data.train.batches(count, rng=np.random.default_rng([0, 3]))))


def main() -> None:
    kept = results.read(FILE)
    rows: dict[str, list[Row]] = kept.get("rows", {})
    whole: float | None = kept.get("top1_of_the_original")
    missing = [budget for budget in BUDGETS if _name(budget) not in rows]
    if missing:
        job = Job()
        whole = job.bench.accuracy(job.bench.model)
        for budget in missing:
            rows[_name(budget)] = [job.row(budget, asked_for) for asked_for in (BEFORE, Pruning())]
            contents = {"machine": machine.describe("onnxruntime", "torch", "numpy"), "top1_of_the_original": whole}
            results.write(FILE, {**contents, "rows": rows}, claims(whole, rows))
    show(whole or 0.0, rows)


def _name(budget: Budget) -> str:
    return " ".join(f"{name} {goal:g}" for name, goal in budget.lines().items())


def claims(whole: float, rows: dict[str, list[Row]]) -> list[results.Claim]:
    """At every budget what a job chooses is ahead of what it was without choosing."""
    lost = {name: [100 * (whole - row["top1"]) for row in pair] for name, pair in rows.items()}
    text = "; ".join(f"{chosen:.2f} against {before:.2f} at {name}" for name, (before, chosen) in lost.items())
    holds = len(rows) == len(BUDGETS) and all(chosen < before for before, chosen in lost.values())
    what = f"{BASE}, no finetuning: points lost with the methods that a job chooses, against l2, uniform"
    return [results.Claim(what, 4, text, "fewer at every budget", holds)]


def show(whole: float, rows: dict[str, list[Row]]) -> None:
    table = Table(title=f"{BASE} on CIFAR-10, {whole:.2%} top-1 before the cut")
    for heading in ("budget", "criterion, allocation", "MACs", "seconds to choose", "top-1 without training"):
        table.add_column(heading)
    for pair in rows.values():
        for row in pair:
            cells = (row["budget"], row["methods"], f"{row['macs_ratio']:.1%}", str(row["seconds_to_choose"]))
            table.add_row(*cells, f"{row['top1']:.2%}")
    Console().print(table)


if __name__ == "__main__":
    main()
