"""Finetuning with the original as a teacher where it is right, as jobs have it, against labels alone (issue 4).

    python -m benchmarks.distillation
    python -m benchmarks.distillation --epochs 3 --seeds 0 1

ResNet-56 on CIFAR-10 at half of its MACs, cut by what a job chooses and refitted, is trained each way from there: the
same images in the same order, the same learning rate. Top-1 in ONNX Runtime on the 5,000 images of `cifar10_val`, which
choose nothing. Needs the shared folder beside the checkout. Rows are kept one by one.
"""

import argparse
import time
from collections.abc import Sequence
from statistics import mean
from typing import Any, Literal

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import machine, results
from benchmarks.accuracy_bench import Bench, Row, Settings

FILE = results.FOLDER / "distillation.json"
BASE, METHOD, FACTOR, RATE = "resnet56", "refit, sensitivity", 2, 0.02
PLAIN, TAUGHT = "labels alone", "taught where the original is right"
WAYS: dict[str, Literal["auto"] | float] = {PLAIN: 0.0, TAUGHT: "auto", "taught on all images": 0.5}
Rows = dict[str, dict[str, Any]]


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    rows: Rows = results.read(FILE).get("rows", {})
    for seed in options.seeds:
        wanted = {f"{way}/{_count(options.epochs, 'epoch')}/seed {seed}": share for way, share in WAYS.items()}
        missing = {name: share for name, share in wanted.items() if name not in rows}
        if missing:
            row = Row(BASE, "option_b", "ours", METHOD, FACTOR, seed)
            bench = Bench.of(row, Settings(options.threads, 2000))
            recovered = bench.recovered(row)
            for name, share in missing.items():
                begun = time.monotonic()
                top1 = bench.trained(recovered, options.epochs, RATE, share)
                rows[name] = {"top1": top1, "seconds": round(time.monotonic() - begun)}
                contents = {"machine": machine.describe("onnxruntime", "torch", "numpy"), "rows": rows}
                results.write(FILE, contents, claims(rows))
    show(rows)


def claims(rows: Rows) -> list[results.Claim]:
    """For each number of epochs, over the seeds that both were run with."""
    found = []
    for epochs in sorted({name.split("/")[1] for name in rows}):
        pairs = [
            (rows[name]["top1"], rows[name.replace(PLAIN, TAUGHT)]["top1"])
            for name in rows
            if name.startswith(f"{PLAIN}/{epochs}/") and name.replace(PLAIN, TAUGHT) in rows
        ]
        if pairs:
            before, after = (100 * mean(values) for values in zip(*pairs, strict=True))
            value = f"{after:.2f} against {before:.2f} % ({_count(len(pairs), 'seed')})"
            what = f"{BASE} at {FACTOR}x fewer MACs, after {epochs}: top-1 with the original as a teacher, too"
            found.append(results.Claim(what, 4, value, "more than with labels alone", after > before))
    return found


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


def show(rows: Rows) -> None:
    table = Table(title=f"{BASE} on CIFAR-10 at {FACTOR}x fewer MACs, {METHOD}, refitted, then trained from {RATE:g}")
    for heading in ("training", "top-1", "seconds"):
        table.add_column(heading)
    for name, row in rows.items():
        table.add_row(name, f"{row['top1']:.2%}", str(row["seconds"]))
    Console().print(table)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seeds", nargs="+", type=int, default=(0,))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser


if __name__ == "__main__":
    main()
