"""Accuracy at 2, 3 and 4 times fewer MACs on CIFAR-10, ours and Torch-Pruning's side by side (issue 4).

    python -m benchmarks.accuracy                               # what is missing in results/accuracy.json
    python -m benchmarks.accuracy --bases resnet20 --factors 2 3 --seeds 0
    python -m benchmarks.accuracy --epochs 1 3                  # besides: train the best few
    python -m benchmarks.accuracy --epochs 3 --rates 0.01 0.02  # at the better of two learning rates for each
    python -m benchmarks.accuracy --epochs 3 --taught           # with the original as a teacher of both sides
    python -m benchmarks.accuracy --methods all                 # every criterion and allocation of ours
    python -m benchmarks.accuracy --show

Needs the extra `bench` and the shared folder beside the checkout. Bases and data are kept in ESPALIER_BENCHMARK_CACHE.

Each row is one way to choose channels on one base at one budget with one seed. Measured are the accuracy right after
the cut; after BN re-estimation by the same code on the same calibration images for both sides; for ours also after
least-squares reconstruction, which Torch-Pruning has not; and, where epochs are asked for, after that many epochs of
the same finetuning, from the last of these states, recovered on images that are cropped and flipped as the training's
are. All of it in ONNX Runtime on the exported file, on the 5,000 images of `cifar10_val`, which choose nothing but
whether validation images alone may judge the state before a training. Rows are kept one by one, so an interrupted run
goes on where it stopped.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from benchmarks import accuracy_report, machine, results
from benchmarks.accuracy_bases import FORMS
from benchmarks.accuracy_bench import Bench, Row, Settings, is_same_base
from benchmarks.accuracy_methods import ALL_PEERS, INNER_PEERS, OTHERS, OURS, Ours, Peer
from worker.engine.recovery.distillation import Share

RESULTS = results.FOLDER / "accuracy.json"
BASES = ("resnet20", "resnet56", "vgg16_bn")
METHODS: dict[str, dict[str, Ours] | dict[str, Peer]] = {"ours": OURS | OTHERS, "torch-pruning": ALL_PEERS}
DISTRIBUTIONS = ("torch", "onnx", "onnxruntime", "torch-pruning")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    settings = Settings(options.threads, options.calibration_images)
    kept = results.read(options.results)
    bases, rows = kept.get("bases", {}), kept.get("rows", {})

    def keep() -> None:
        contents = {"machine": machine.describe(*DISTRIBUTIONS), "bases": bases, "rows": rows}
        results.write(options.results, contents, accuracy_report.claims(bases, rows, METHODS))

    def know(base: str) -> None:
        """Rows of a base that was trained anew since, on another machine, say, are measured anew."""
        bench = Bench.of(Row(base, "option_b", "ours", "", 1, 0), settings)
        accuracy = bench.accuracy(bench.model)
        if not is_same_base(bases.setdefault(base, accuracy), accuracy):
            print(f"{base} has {accuracy:.2%} and had {bases[base]:.2%}: it is another, and its rows are left out.")
            bases[base] = accuracy
            for key in [key for key in rows if key.startswith(f"{base}/")]:
                del rows[key]

    def measure(row: Row) -> None:
        rows[str(row)] = Bench.of(row, settings).measure(row)
        print(f"{row}: {rows[str(row)]}", flush=True)
        keep()

    def train(row: Row) -> None:
        trained = rows[str(row)].setdefault("taught" if options.taught else "trained", {})
        wanted = [(epochs, rate) for epochs in options.epochs for rate in options.rates]
        missing = [(epochs, rate) for epochs, rate in wanted if f"{rate:g}" not in trained.get(str(epochs), {})]
        if missing:
            share: Share = "auto" if options.taught else 0.0
            for epochs, rate, accuracy in Bench.of(row, settings).train(row, missing, share):
                trained.setdefault(str(epochs), {})[f"{rate:g}"] = accuracy
                keep()

    if not options.show:
        wanted = list(_wanted(options))
        for base in dict.fromkeys(row.base for row in wanted):
            know(base)
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
    parser.add_argument("--methods", nargs="+", default=(*OURS, *ALL_PEERS), help="names, ours and theirs; or all")
    parser.add_argument("--epochs", nargs="*", type=int, default=(), help="train the best rows for so many epochs")
    parser.add_argument("--taught", action="store_true", help="by the original, too, as in jobs that say nothing else")
    parser.add_argument("--rates", nargs="+", type=float, default=(0.02,), help="learning rates; the best counts")
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
                            if method in INNER_PEERS and not base.startswith("resnet"):
                                continue  # there are no streams
                            if method in options.methods or "all" in options.methods:
                                yield Row(base, form, side, method, factor, seed)


if __name__ == "__main__":
    sys.exit(main())
