"""Accuracy at 2, 3 and 4 times fewer MACs on CIFAR-10, ours and Torch-Pruning's side by side (issue 4).

    python -m benchmarks.accuracy                               # what is missing in results/accuracy.json
    python -m benchmarks.accuracy --bases resnet20 --factors 2 3 --seeds 0
    python -m benchmarks.accuracy --epochs 1 3                  # besides: train the best few
    python -m benchmarks.accuracy --methods all                 # every criterion and allocation of ours
    python -m benchmarks.accuracy --show

Needs the extra `bench` and the shared folder beside the checkout. Bases and data are kept in ESPALIER_BENCHMARK_CACHE.

Each row is one way to choose channels on one base at one budget with one seed. Measured are the accuracy right after
the cut; after BN re-estimation by the same code on the same calibration images for both sides; for ours also after
least-squares reconstruction, which Torch-Pruning has not; and, where epochs are asked for, after that many epochs of
the same finetuning, from the best of these states. All of it in ONNX Runtime on the exported file, on the 5,000 images
of `cifar10_val`, which choose nothing. Rows are kept one by one, so an interrupted run goes on where it stopped.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch

from benchmarks import accuracy_report, machine, results
from benchmarks.accuracy_bases import FORMS, MEAN, STD, cifar10, export, folder, load
from benchmarks.accuracy_methods import ALL_OURS, OTHERS, OURS, PEERS, cut_ours, cut_peer
from worker.engine.criteria import Calibration
from worker.engine.data import DataOptions, Dataset, InputSpec, open_dataset
from worker.engine.graph import analyze
from worker.engine.measure import evaluate
from worker.engine.recovery import FinetuneOptions, calibration_batches, finetune, reconstruct, reestimate_norms
from worker.engine.torch_form import build

RESULTS = results.FOLDER / "accuracy.json"
BASES = ("resnet20", "resnet56", "vgg16_bn")
METHODS = {"ours": OURS | OTHERS, "torch-pruning": PEERS}
SCORING_IMAGES = 256
DISTRIBUTIONS = ("torch", "onnx", "onnxruntime", "torch-pruning")


class Row(NamedTuple):
    """What one row measures. Ours is run on both forms of a ResNet, Torch-Pruning on option B."""

    base: str
    form: str
    side: str
    method: str
    factor: float
    seed: int

    def __str__(self) -> str:
        return f"{self.base}/{self.form}/{self.side}/{self.method}/{self.factor:g}x/seed {self.seed}"


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    kept = results.read(options.results)
    bases, rows = kept.get("bases", {}), kept.get("rows", {})

    def keep() -> None:
        contents = {"machine": machine.describe(*DISTRIBUTIONS), "bases": bases, "rows": rows}
        results.write(options.results, contents, accuracy_report.claims(bases, rows, METHODS))

    def measure(row: Row) -> None:
        bench = Bench.of(row, options)
        if row.base not in bases:
            bases[row.base] = bench.accuracy(bench.model)
        rows[str(row)] = bench.measure(row)
        print(f"{row}: {rows[str(row)]}", flush=True)
        keep()

    def train(row: Row) -> None:
        trained = rows[str(row)].setdefault("trained", {})
        missing = [epochs for epochs in options.epochs if str(epochs) not in trained]
        if missing:
            trained |= Bench.of(row, options).train(row, missing)
            keep()

    if not options.show:
        wanted = list(_wanted(options))
        for row in wanted:
            if str(row) not in rows:
                measure(row)
        # Not before all are known: only then is it clear which are the best.
        for row in wanted:
            if options.epochs and accuracy_report.is_among_best(str(row), rows, options.best):
                train(row)
    accuracy_report.show(bases, rows, METHODS)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bases", nargs="+", choices=BASES, default=BASES)
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS)
    parser.add_argument("--factors", nargs="+", type=float, default=(2, 3, 4), help="how many times fewer MACs")
    parser.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2))
    parser.add_argument("--methods", nargs="+", default=(*OURS, *PEERS), help="names, ours and theirs; or all")
    parser.add_argument("--epochs", nargs="*", type=int, default=(), help="train the best rows for so many epochs")
    parser.add_argument("--best", type=int, default=3, help="how many rows of each side, base and budget are trained")
    parser.add_argument("--calibration-images", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--show", action="store_true", help="measure nothing, show the results")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser


def _wanted(options: argparse.Namespace) -> Iterator[Row]:
    """The cheapest and most wanted first: one seed after the other, base by base."""
    for seed in options.seeds:
        for base in options.bases:
            for factor in options.factors:
                for form in options.forms if base.startswith("resnet") else ("option_b",):
                    for side, methods in METHODS.items():
                        if side == "torch-pruning" and form == "option_a":
                            continue
                        for method in methods:
                            if method in options.methods or "all" in options.methods:
                                yield Row(base, form, side, method, factor, seed)


class Bench:
    """One base in one form, with the images of one seed."""

    _known: dict[tuple[str, str, int], "Bench"] = {}  # noqa: RUF012

    def __init__(self, base: str, form: str, seed: int, options: argparse.Namespace) -> None:
        self.network, self.seed, self.options = load(base, form), seed, options
        path = folder() / f"{base}_{form}.onnx"
        if not path.exists():
            export(self.network, path)
        self.model = onnx.load(path)
        spec = InputSpec.of(self.model)
        self.data: Dataset = open_dataset(cifar10(), spec, DataOptions(MEAN, STD), seed)
        images, labels = next(self.data.train.batches(SCORING_IMAGES, rng=np.random.default_rng([seed, 3])))
        self.images = Calibration(images, labels)
        self.original = build(self.model)

    @classmethod
    def of(cls, row: Row, options: argparse.Namespace) -> "Bench":
        key = (row.base, row.form, row.seed)
        if key not in cls._known:
            cls._known.clear()
            cls._known[key] = cls(*key, options)
        return cls._known[key]

    def accuracy(self, model: onnx.ModelProto) -> float:
        return evaluate(model, self.data.test, 10, self.options.threads).top1

    def measure(self, row: Row) -> dict[str, Any]:
        """MACs and accuracies of a row; the seconds that choosing and recovering took."""
        start = time.monotonic()
        cut, recoveries = self._cut(row)
        result: dict[str, Any] = {
            "macs_ratio": analyze(cut).macs / analyze(self.model).macs,
            "calibration_images": self.options.calibration_images,
            "seconds_to_cut": round(time.monotonic() - start, 1),
            "top1": {"cut": self.accuracy(cut)},
        }
        for name, recovery in recoveries.items():
            start = time.monotonic()
            recovered = recovery()
            result[f"seconds_{name}"] = round(time.monotonic() - start, 1)
            result["top1"][name] = self.accuracy(recovered)
        return result

    def train(self, row: Row, all_epochs: Sequence[int]) -> dict[str, float]:
        """Epochs -> accuracy, each trained from the row's best state without training."""
        _, recoveries = self._cut(row)
        start = recoveries["reconstructed" if row.side == "ours" else "bn"]()
        found = {}
        for epochs in all_epochs:
            form = build(start)
            options = FinetuneOptions(
                epochs=epochs,
                learning_rate=0.02,
                crop_padding=4,
                horizontal_flip=True,
                precision="bfloat16",  # the same for both sides, whatever a trial would choose
                seed=self.seed,
            )
            finetune(form, self.data, options)
            found[str(epochs)] = self.accuracy(form.write_back())
            print(f"{row}: {found[str(epochs)]:.4f} after {epochs} epochs", flush=True)
        return found

    def _cut(self, row: Row) -> tuple[onnx.ModelProto, dict[str, Callable[[], onnx.ModelProto]]]:
        """The cut model, and the ways to win its accuracy back without training."""
        if row.side == "torch-pruning":
            cut = cut_peer(PEERS[row.method], self.network, 1 / row.factor, self.images)
            return cut, {"bn": lambda: self._renormed(cut)}
        ours = ALL_OURS[row.method]
        analysis, plan, cut = cut_ours(ours, self.model, 1 / row.factor, self.images, self.data, self.seed)

        def reconstructed() -> onnx.ModelProto:
            form = build(cut)
            reconstruct(analysis, plan, self.original, form, self._batches(form, self.original))
            return form.write_back()

        return cut, {"bn": lambda: self._renormed(cut), "reconstructed": reconstructed}

    def _renormed(self, cut: onnx.ModelProto) -> onnx.ModelProto:
        form = build(cut)
        reestimate_norms(form, self._batches(form))
        return form.write_back()

    def _batches(self, *forms: Any) -> list[torch.Tensor]:
        return calibration_batches(self.data.train, self.options.calibration_images, forms, self.seed)


if __name__ == "__main__":
    sys.exit(main())
