"""Paper 1, heuristic filter pruning with the estimator gamma (Choudhary et al.), on CIFAR-10.

The CIFAR forms of VGG16 and ResNet34 lose the share of their MACs that the paper reports, by each rule for gamma, and
by the same scores with the same rate in every layer as a control. The rules reconstruct the paper's formula, which is
not public. Accuracy right after the cut, after the recovery without training, and after finetuning.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.accuracy_bench import Bench, Row, Settings, is_same_base
from benchmarks.accuracy_methods import CONTROL, HEURISTIC

REMOVED = {"vgg16_bn": 0.7747, "resnet34": 0.4194}
"""The paper's shares of the MACs, on ImageNet."""

RATE = 0.02
LABELS_ALONE = 0.0
"""As in the paper: the original teaches nothing."""

Found = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bases", nargs="+", choices=REMOVED, default=tuple(REMOVED))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--calibration-images", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())


def run(arguments: argparse.Namespace, found: Found, keep: Callable[[Found], None]) -> None:
    """Each row that is missing, kept as soon as it is known."""
    torch.set_num_threads(arguments.threads)
    settings = Settings(arguments.threads, arguments.calibration_images)
    for base in arguments.bases:
        asked = {m: Row(base, "option_b", "ours", m, 1 / (1 - REMOVED[base]), seed=0) for m in (*HEURISTIC, CONTROL)}
        bench = Bench.of(asked[CONTROL], settings)
        top1 = bench.accuracy(bench.model)
        if base in found and not is_same_base(found[base]["top1"], top1):
            print(f"{base} has {top1:.2%} and had {found[base]['top1']:.2%}: it is another, and its rows are left out.")
            del found[base]
        rows = found.setdefault(base, {"top1": top1, "rows": {}})["rows"]
        for method, row in asked.items():
            if method not in rows:
                rows[method] = {**bench.measure(row), "trained": {}}
                keep(found)
            if str(arguments.epochs) not in rows[method]["trained"]:
                for epochs, _, accuracy in bench.train(row, [(arguments.epochs, RATE)], LABELS_ALONE):
                    rows[method]["trained"][str(epochs)] = accuracy
                keep(found)
    Console().print(table(found))


def table(found: Found) -> Table:
    shown = Table(title="CIFAR-10, top-1 on cifar10_val")
    for heading in ("base", "method", "MACs", "right after the cut", "BN re-estimated", "reconstructed", "trained"):
        shown.add_column(heading)
    for base, part in found.items():
        shown.add_row(base, "whole", "100%", f"{part['top1']:.2%}")
        for method, row in part["rows"].items():
            states = [row["top1"][state] for state in ("cut", "bn", "reconstructed")]
            trained = [f"{value:.2%} ({epochs} epochs)" for epochs, value in row["trained"].items()]
            shown.add_row(
                base, method, f"{row['macs_ratio']:.1%}", *(f"{value:.2%}" for value in states), ", ".join(trained)
            )
    return shown
