"""The coverage results as a table, and what they say about each sentence of issue 3."""

from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.results import Claim
from benchmarks.zoo import Entry, entries

Cell = dict[str, Any]
Rows = dict[str, dict[str, Cell]]

ISSUE = 3
CONVOLUTIONAL = (
    *("alexnet", "densenet", "efficientnet", "googlenet", "inception", "mnasnet", "mobilenet", "regnet", "resnet"),
    *("resnext", "shufflenet", "squeezenet", "vgg", "wide_resnet"),
)
"""Families of torchvision's classification models without LayerNormalization, as prefixes of their names."""

_OURS = ("ours", "ours_runtime_pass")
_HOW = {"ours": "shapes inferred", "ours_runtime_pass": "with the ONNX Runtime pass"}


def line(entry: Entry, column: str, cell: Cell) -> str:
    """One measurement, as it is reported while the run goes on."""
    numbers = [f"{key} {cell[key]:.3g}" for key in ("seconds", "macs_ratio", "proof_error") if key in cell]
    return f"{entry} {column}: {cell['status']} {', '.join(numbers)}{cell.get('error', '')}"


# ---------------------------------------------------------------------------------------------- claims


def claims(rows: Rows) -> list[Claim]:
    """The measurable sentences of the issue. A sentence about all models does not hold before all are measured."""
    return [*_coverage(rows), *_quality(rows), *_time(rows), *_memory(rows), _ahead(rows)]


def _coverage(rows: Rows) -> Iterable[Claim]:
    for library, title, needed in (
        ("torchvision", "torchvision classification models", 80),
        ("torchvision_seg", "torchvision segmentation models", 6),
        ("timm", "timm models", 83),
        ("shared", "public ONNX files", 9),
    ):
        names = [str(entry) for entry in entries() if entry.library == library]
        done = sum(_correct(rows.get(name, {}).get("ours")) for name in names)
        goal = f"at least {needed}" if needed < len(names) else f"all {needed}"
        name = f"{title} pruned by half of the prunable channels, proved to 1e-4 and run by ONNX Runtime"
        yield _claim(name, f"{done} of {len(names)}", goal, done >= needed)


def _quality(rows: Rows) -> Iterable[Claim]:
    cells = _cells(rows, "ours")
    complete = _complete(rows, "ours")
    errors = {name: cell["proof_error"] for name, cell in cells.items()}
    yield _worst("largest error of a proof", errors, "at most 1e-4", lambda error: error <= 1e-4, complete)
    gaps = {name: 100 * abs(cell["macs_ratio"] - cell["macs_ratio_allowed"]) for name, cell in cells.items()}
    name = "MACs ratio reached, points away from exactly half of every prunable layer"
    yield _worst(name, gaps, "at most 3 points", lambda gap: gap <= 3, complete)
    families = {
        family: median(ratios)
        for family in CONVOLUTIONAL
        if (ratios := [c["macs_ratio"] for n, c in cells.items() if n.startswith(f"torchvision/{family}")])
    }
    name = "median MACs ratio of each convolutional family of torchvision"
    yield _worst(name, families, "at most 0.32", lambda ratio: ratio <= 0.32, complete)


def _time(rows: Rows) -> Iterable[Claim]:
    ours = _cells(rows, "ours")
    total = {name: cell["cpu_seconds"] for name, cell in ours.items()}
    shapeless = {name: cell["cpu_seconds"] - cell["shapes_cpu_seconds"] for name, cell in ours.items()}
    for how, seconds in (("without finding the shapes", shapeless), ("with it", total)):
        for peer, title, most in (("torch_pruning", "Torch-Pruning", 1 / 3), ("onnxsim", "onnxsim", 2.0)):
            theirs = _cells(rows, peer)
            ratios = [seconds[n] / theirs[n]["cpu_seconds"] for n in ours if n in theirs]
            middle = median(ratios) if ratios else float("inf")
            name = f"analysis and surgery, {how}, against {title}: median ratio of processor seconds"
            value = f"{middle:.2f} on {len(ratios)} models"
            yield _claim(name, value, f"at most {most:.2f}", middle <= most and _complete(rows, peer))
    for column in _OURS:
        seconds = {name: cell["seconds"] for name, cell in _cells(rows, column).items()}
        name = f"seconds of analysis and surgery ({_HOW[column]})"
        yield _worst(name, seconds, "at most 10", lambda s: s <= 10, _complete(rows, column))


def _memory(rows: Rows) -> Iterable[Claim]:
    for column in _OURS:
        shares = {
            name: cell["peak_bytes"] / (3 * cell["model_bytes"] + 500e6) for name, cell in _cells(rows, column).items()
        }
        name = f"peak memory of analysis and surgery ({_HOW[column]}) as a share of 3 x model + 500 MB"
        yield _worst(name, shares, "at most 1", lambda share: share <= 1, _complete(rows, column))


def _ahead(rows: Rows) -> Claim:
    """Compared on the models that all pruners have tried; a peer that only ran counts as correct where unchecked."""
    columns = {"ours": "ours", "torch_pruning": "Torch-Pruning", "modelopt": "ModelOpt", "onnxsim": "onnxsim"}
    tried = [row for row in rows.values() if all(c in row for c in columns)]
    correct = {title: sum(_correct(row[c]) for row in tried) for c, title in columns.items()}
    value = ", ".join(f"{title} {number}" for title, number in correct.items()) + f" of {len(tried)}"
    ours = correct.pop("ours")
    return _claim("models pruned correctly, side by side", value, "more than every peer", ours > max(correct.values()))


def _claim(name: str, value: str, goal: str, holds: bool) -> Claim:
    return Claim(name, ISSUE, value, goal, holds)


def _worst(name: str, values: dict[str, float], goal: str, good: Callable[[float], bool], complete: bool) -> Claim:
    """A claim that the largest of the values is good."""
    if not values:
        return _claim(name, "not measured", goal, False)
    which = max(values, key=lambda key: values[key])
    bad = sum(not good(value) for value in values.values())
    value = f"{values[which]:.3g} ({which}; {bad} of {len(values)} beyond the goal)"
    return _claim(name, value, goal, bad == 0 and complete)


def _correct(cell: Cell | None) -> bool:
    return cell is not None and cell["status"] == "pruned"


def _cells(rows: Rows, column: str) -> dict[str, Cell]:
    """The successful cells of a column."""
    return {name: row[column] for name, row in rows.items() if _correct(row.get(column))}


def _complete(rows: Rows, column: str) -> bool:
    return all(column in rows.get(str(entry), {}) for entry in entries())


# ---------------------------------------------------------------------------------------------- table


def show(rows: Rows, verdicts: list[Claim]) -> None:
    """Print the rows and the verdicts."""
    console = Console(width=150) if not Console().is_terminal else Console()
    table = Table(title="MACs ratio and processor seconds with half of the channels asked for")
    table.add_column("model", no_wrap=True)
    for heading in ("ours", "ours, runtime pass", "ours, inexact", "Torch-Pruning", "ModelOpt", "onnxsim"):
        table.add_column(heading, justify="right", no_wrap=True)
    columns = ("ours", "ours_runtime_pass", "ours_inexact", "torch_pruning", "modelopt", "onnxsim")
    for name, row in rows.items():
        if row:
            table.add_row(name, *(_shown(row.get(column)) for column in columns))
    console.print(table)
    summary = Table(title=f"Issue {ISSUE}")
    for heading in ("claim", "value", "goal", "holds"):
        summary.add_column(heading, overflow="fold")
    for claim in verdicts:
        summary.add_row(claim.name, claim.value, claim.goal, "yes" if claim.holds else "no")
    console.print(summary)


def _shown(cell: Cell | None) -> str:
    if cell is None:
        return ""
    if "seconds" not in cell:
        return str(cell["status"])
    ratio = f"{cell['macs_ratio']:.3f} " if "macs_ratio" in cell else ""
    return f"{'' if _correct(cell) else cell['status'] + ' '}{ratio}{cell['cpu_seconds']:.2f} s"
