"""What an estimate job found: no pruned model, but what pruning would cost and gain."""

from typing import Annotated, Literal

from pydantic import Field

from models_store.documents.base import Document
from models_store.documents.job_spec import EstimateSpec
from models_store.documents.recorded import RECORDED
from models_store.documents.report import Artifact, BudgetVerdict, Cost, Machine


class CutAlone(Document):
    """A set of coupled layers that keeps so much of its channels while all others stay whole."""

    keep_ratio: float = Field(description="Kept / all, as the channels allow.")
    macs_ratio: float
    loss: float = Field(description="In the measure that the report names.")
    top1: float | None = Field(default=None, description="On the images; None without labels.")


class LayerSensitivity(Document):
    """Layers whose channels live and die together, cut alone at several ratios."""

    layers: tuple[str, ...]
    channels: int
    macs_share: float = Field(description="Of the model's MACs, those of these layers.")
    cuts: tuple[CutAlone, ...]


class CurvePoint(Document):
    """The plan for one budget of MACs, all layers together."""

    macs_goal: float
    macs_ratio: float
    params_ratio: float
    size_bytes: int
    latency_ms: float = Field(description="By the table of layer times measured on the worker.")
    speedup: float
    loss: float | None = Field(description="Right after the cut, in the measure that the report names.")
    top1: float | None = Field(description="On the images, right after the cut; None without labels.")
    top1_reestimated: float | None = Field(
        description="Once every BatchNormalization was taken anew on training images; None without labels or norms."
    )
    job_s: float = Field(description="Expected duration of the whole prune job at this budget.")


class PinnedLayer(Document):
    name: str
    op: str
    channels: int
    macs_share: float
    reason: str


class StageForecast(Document):
    name: str
    seconds: float
    how: str


class TrainingMemory(Document):
    """What finetuning would need on a GPU, at the batch size of the job."""

    batch_size: int
    weights_bytes: int = Field(description="Weights, their gradients and the optimiser's state, in float32.")
    activations_bytes: int = Field(description="What the backward pass keeps of a whole batch.")
    runtime_bytes: int = Field(description="CUDA context and the workspace of its libraries: an allowance.")
    total_bytes: int
    how: str


class Forecast(Document):
    """Of the whole prune job at the budget of the request, on this machine."""

    macs_ratio: float
    budget: tuple[BudgetVerdict, ...] = Field(description="What the plan costs by estimate, line by line.")
    stages: tuple[StageForecast, ...]
    total_s: float
    memory: TrainingMemory | None = Field(description="None where the model has no trainable form; warnings say why.")


class EstimateReport(Document):
    version: Literal[1] = 1
    kind: Literal["estimate"] = "estimate"
    job_id: str
    attempt: int
    spec: Annotated[EstimateSpec, RECORDED]
    model_name: str
    model_sha256: str
    dataset_sha256: str | None
    original: Cost
    original_latency_ms: float
    latency_batch_size: int
    latency_threads: int
    measure: Literal["output_change", "importance"] = Field(
        description="output_change: norm of the difference to the original's outputs, relative to their norm. "
        "importance: share of the criterion's scores that goes, where the network could not be run in torch."
    )
    measured_on: str = Field(description="Which inputs, and how many.")
    original_top1: float | None = Field(description="On the same images; None without labels.")
    sensitivity: tuple[LayerSensitivity, ...]
    curve: tuple[CurvePoint, ...]
    pinned: tuple[PinnedLayer, ...]
    forecast: Forecast
    warnings: tuple[str, ...]
    machine: Machine
    artifacts: tuple[Artifact, ...] = Field(description="The files beside this report, with their digests.")
    stage_seconds: dict[str, float]
