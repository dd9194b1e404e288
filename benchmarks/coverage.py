"""Every model of the list, pruned by Espalier and by its peers side by side (issue 3).

    python -m benchmarks.coverage                           # what is missing in results/coverage.json
    python -m benchmarks.coverage --only 'ours*' --again all
    python -m benchmarks.coverage --models resnet18 'timm/*former*' --show

Needs the extra `bench`. Exports are kept in ESPALIER_BENCHMARK_CACHE.

Half of the channels are asked for. Each pruner works on each model in a process of its own, with a time limit, on one
thread. Results are kept after every model, so an interrupted run goes on where it stopped.
"""

import argparse
import fnmatch
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import coverage_report, machine, results, trial, zoo

RESULTS = results.FOLDER / "coverage.json"
EXPORT_LIMIT_SECONDS = 900

DISTRIBUTIONS = ("torch", "torchvision", "timm", "onnx", "onnxruntime", "torch-pruning", "nvidia-modelopt", "onnxsim")


class Pruner(NamedTuple):
    """A column of the table: the module that runs it, and what that module is told after the model's name."""

    module: str
    arguments: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    """What it imports late, named so that no measurement waits for it."""
    reads_python: bool = False
    """Whether it prunes the model's Python code: such a pruner has nothing to do with a bare ONNX file."""


RUNTIME = ("onnxruntime",)
ZOO = ("torchvision", "timm")
PRUNERS = {
    "ours": Pruner("benchmarks.pruners.ours", ("exact",), RUNTIME),
    "ours_runtime_pass": Pruner("benchmarks.pruners.ours", ("runtime_pass",), RUNTIME),
    "ours_inexact": Pruner("benchmarks.pruners.ours", ("inexact",), RUNTIME),
    "torch_pruning": Pruner("benchmarks.pruners.torch_pruning", imports=ZOO, reads_python=True),
    "modelopt": Pruner("benchmarks.pruners.modelopt", imports=ZOO, reads_python=True),
    "onnxsim": Pruner("benchmarks.pruners.onnxsim", imports=RUNTIME),
}


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    rows: dict[str, dict[str, Any]] = results.read(options.results).get("rows", {})
    chosen = _chosen(options.models)
    pruners = [
        name for name in PRUNERS if not options.only or any(fnmatch.fnmatch(name, only) for only in options.only)
    ]
    if not options.show:
        for number, entry in enumerate(chosen, start=1):  # the list has the smallest first
            row = rows.setdefault(str(entry), {})
            missing = [name for name in pruners if _wanted(row.get(name), options.again)]
            if missing and _exported(entry, row, options):
                for name in missing:
                    row[name] = _measure(PRUNERS[name], entry, options.limit)
                    print(f"{number}/{len(chosen)} {coverage_report.line(entry, name, row[name])}", flush=True)
                _keep(options.results, rows)
    _keep(options.results, rows)
    coverage_report.show({str(entry): rows.get(str(entry), {}) for entry in chosen}, coverage_report.claims(rows))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["*"], help="patterns of names, with or without the library")
    parser.add_argument("--only", nargs="+", help=f"patterns of columns: {', '.join(PRUNERS)}")
    parser.add_argument("--again", choices=("failed", "all"), help="measure anew what the results hold already")
    parser.add_argument("--show", action="store_true", help="measure nothing, show the results")
    parser.add_argument("--limit", type=float, default=300, help="seconds for one pruner on one model")
    parser.add_argument("--no-export", action="store_true", help="skip models that the cache does not hold yet")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser


def _chosen(patterns: Sequence[str]) -> list[zoo.Entry]:
    chosen = [e for e in zoo.entries() if any(fnmatch.fnmatch(n, p) for p in patterns for n in (str(e), e.model))]
    if not chosen:
        sys.exit(f"No model of {zoo.LIST} matches {' '.join(patterns)}.")
    return chosen


def _wanted(cell: dict[str, Any] | None, again: str | None) -> bool:
    return cell is None or again == "all" or (again == "failed" and cell["status"] in ("failed", "timeout"))


def _exported(entry: zoo.Entry, row: dict[str, Any], options: argparse.Namespace) -> bool:
    """Whether the model's ONNX file is there, exported now if need be."""
    if not entry.onnx_file.exists() and entry.library != "shared" and not options.no_export:
        outcome = trial.run("benchmarks.zoo", [str(entry)], EXPORT_LIMIT_SECONDS, ("torch.onnx", "onnxscript", *ZOO))
        if outcome["status"] != "exported":
            row["export"] = outcome
    return entry.onnx_file.exists()


def _measure(pruner: Pruner, entry: zoo.Entry, limit: float) -> dict[str, Any]:
    if pruner.reads_python and entry.library == "shared":
        return {"status": "not applicable", "error": "needs the model's Python code"}
    return trial.run(pruner.module, [str(entry), *pruner.arguments], limit, pruner.imports)


def _keep(path: Path, rows: dict[str, dict[str, Any]]) -> None:
    contents = {"machine": machine.describe(*DISTRIBUTIONS), "rows": rows}
    results.write(path, contents, coverage_report.claims(rows))


if __name__ == "__main__":
    sys.exit(main())
