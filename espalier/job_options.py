"""Options that several commands have in common, and what they put into a job's body."""

from typing import Annotated, Any

import typer

MacsRatio = Annotated[float | None, typer.Option(help="MACs to keep: 0.4 keeps 40 %.")]
ParamsRatio = Annotated[float | None, typer.Option(help="Parameters to keep.")]
SizeBytes = Annotated[int | None, typer.Option(help="Of the pruned ONNX file.")]
LatencyRatio = Annotated[float | None, typer.Option(help="Latency to keep, as measured on the worker.")]
LatencyMs = Annotated[float | None, typer.Option(help="Median latency, as measured on the worker.")]
LatencyBatchSize = Annotated[int | None, typer.Option(help="At which the budget's latency is measured; 1 if left out.")]
LatencyThreads = Annotated[int | None, typer.Option(help="With which it is measured; 1 if left out.")]
MaxAccuracyDrop = Annotated[
    float | None, typer.Option(help="Top-1 accuracy that may be lost: 0.01 is one point. Needs a dataset.")
]
Criterion = Annotated[
    str | None, typer.Option(help="How important each channel is: l1, taylor, …; by the data if left out.")
]
CriterionOptions = Annotated[
    list[str] | None, typer.Option("--criterion-option", help="NAME=VALUE of the criterion, as GET /v1/methods lists.")
]
Allocation = Annotated[
    str | None,
    typer.Option(help="How much goes where: uniform, latency, tpe, …; by data and budget if left out."),
]
AllocationOptions = Annotated[
    list[str] | None, typer.Option("--allocation-option", help="NAME=VALUE of the allocation: evaluations=50")
]
RoundTo = Annotated[int | None, typer.Option(help="Channel counts become multiples of this.")]
Mean = Annotated[str | None, typer.Option(help="Per channel, of pixels in 0..1: 0.485,0.456,0.406")]
Std = Annotated[str | None, typer.Option(help="Per channel, of pixels in 0..1.")]
Seed = Annotated[int | None, typer.Option(help="Of everything random.")]
Label = Annotated[str | None, typer.Option(help="For finding the job again.")]
Epochs = Annotated[int | None, typer.Option(help="Epochs of finetuning; 0 for none.")]
LearningRate = Annotated[float | None, typer.Option(help="Of finetuning, at its start.")]
Dataset = Annotated[
    str | None, typer.Option(help="A dataset's id, dst_…, or a path. Without one: no training, no accuracy.")
]
Model = Annotated[str, typer.Argument(help="A model's id, mdl_…, or a file, which is then uploaded.")]


def budget(
    *,
    macs_ratio: float | None,
    params_ratio: float | None,
    size_bytes: int | None,
    latency_ratio: float | None,
    latency_ms: float | None,
    latency_batch_size: int | None,
    latency_threads: int | None,
    max_accuracy_drop: float | None = None,
) -> dict[str, Any]:
    """The lines of a job's budget."""
    return {
        "macs_ratio": macs_ratio,
        "params_ratio": params_ratio,
        "size_bytes": size_bytes,
        "latency_ratio": latency_ratio,
        "latency_ms": latency_ms,
        "latency_batch_size": latency_batch_size,
        "latency_threads": latency_threads,
        "max_accuracy_drop": max_accuracy_drop,
    }


def pruning(
    *,
    criterion: str | None,
    criterion_options: list[str] | None,
    allocation: str | None,
    allocation_options: list[str] | None,
    round_to: int | None,
) -> dict[str, Any]:
    """The methods of a job."""
    return {
        "criterion": criterion,
        "criterion_options": named_values(criterion_options),
        "allocation": allocation,
        "allocation_options": named_values(allocation_options),
        "round_to": round_to,
    }


def named_values(texts: list[str] | None) -> dict[str, Any] | None:
    """`a=1` and `b=fast` as {"a": 1, "b": "fast"}."""
    found = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"{text!r} is not of the form NAME=VALUE")
        found[name.strip()] = value_of(value.strip())
    return found or None


def value_of(text: str) -> bool | int | float | str:
    """What a text stands for: true and false, numbers, or the text itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def numbers(text: str | None) -> list[float] | None:
    """0.485,0.456 as a list."""
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a list of numbers such as 0.5,0.5,0.5") from error
