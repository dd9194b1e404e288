"""What a job measured. Units stand in the field names; ratios are pruned / original."""

from typing import Annotated, Literal

from pydantic import Field

from models_store.documents.base import Document
from models_store.documents.export_spec import ExportedFile, MissingFile
from models_store.documents.job_spec import Budget, JobSpec
from models_store.documents.recorded import RECORDED


class Cost(Document):
    params: int = Field(
        description="Numbers in the weights of the file, running means and variances of norms among them."
    )
    macs: int = Field(description="Multiply-accumulates for one sample.")
    flops: int = Field(description="2 x MACs.")
    size_bytes: int = Field(description="The ONNX file.")
    peak_memory_bytes: int | None = Field(
        default=None,
        description="Resident memory that loading the file in ONNX Runtime on the CPU and running one sample adds to a "
        "process, at its peak. None where it was not measured.",
    )


class Accuracy(Document):
    """On the test split, computed by ONNX Runtime on the exported file."""

    top1: float = Field(ge=0, le=1)
    top5: float | None = Field(default=None, ge=0, le=1, description="None with five classes or fewer.")
    loss: float
    samples: int


class AccuracyRows(Document):
    original: Accuracy
    after_cut: Accuracy
    after_recovery: Accuracy | None = Field(default=None, description="None where the job asked for no recovery.")
    final: Accuracy
    changed_labels: float = Field(
        description="Share of test samples whose predicted class differs from the original's."
    )


class OutputError(Document):
    name: str
    error: float | None = Field(
        description="Root mean square of the differences over the standard deviation of the original's numbers; of "
        "integers the share that differs. None where the two models give different shapes, such as numbers of boxes."
    )


class Fidelity(Document):
    """How far a model's outputs are from the original's, in ONNX Runtime, on the test images."""

    error: float | None = Field(description="Mean over the outputs that can be compared; None where none can.")
    outputs: tuple[OutputError, ...]
    samples: int


class FidelityRows(Document):
    after_cut: Fidelity
    after_recovery: Fidelity | None = Field(default=None, description="None where the job asked for no recovery.")
    final: Fidelity


class LatencySummary(Document):
    p50_ms: float
    p90_ms: float
    p99_ms: float


class LatencyRow(Document):
    """Original and pruned, run in turn (A-B-B-A) in one process."""

    batch_size: int
    threads: int
    rounds: int
    original: LatencySummary
    pruned: LatencySummary
    speedup: float = Field(description="original / pruned, median of the per-round ratios.")
    speedup_low: float = Field(description="10th percentile of the per-round ratios.")
    speedup_high: float = Field(description="90th percentile of the per-round ratios.")
    noise: float = Field(description="Half the 10-90 % spread of the original's times, relative to its median.")

    @property
    def setting(self) -> str:
        """Such as `batch 8`, or `batch 8, 2 threads`: a budget may have other threads than the measuring."""
        return f"batch {self.batch_size}" + (f", {self.threads} threads" if self.threads > 1 else "")

    @property
    def resolved(self) -> bool:
        """Whether the 10-90 % band of the ratios leaves 1 on one side: a difference beyond the noise."""
        return self.faster or self.speedup_high < 1

    @property
    def faster(self) -> bool:
        """Whether the whole 10-90 % band of the ratios lies above 1."""
        return self.speedup_low > 1


class LayerRow(Document):
    name: str
    op: str
    groups: tuple[int, ...]
    channels_original: int
    channels_pruned: int
    macs_original: int
    macs_pruned: int
    params_original: int
    params_pruned: int
    time_original_ms: float | None = Field(
        default=None,
        description="Of the layer's kernel in ONNX Runtime, for one sample, where the layer runs by itself; None where "
        "it cannot.",
    )
    time_pruned_ms: float | None = None
    pinned_reason: str | None = None


class ProofRun(Document):
    input_shapes: dict[str, tuple[int, ...]]
    max_relative_error: float


class Proof(Document):
    """The pruned graph against the original with the removed channels' outgoing weights set to zero."""

    passed: bool
    tolerance: float
    max_relative_error: float
    compared_tensors: int = Field(description="Graph outputs and inner tensors compared.")
    runs: tuple[ProofRun, ...]
    waived_nodes: tuple[str, ...] = Field(
        default=(), description="Norms over pruned channels: compared with the norm restricted to the kept channels."
    )
    given_choices: tuple[str, ...] = Field(
        default=(),
        description="Nodes that choose among near ties (TopK, say): both graphs were given one choice, and compared at "
        "what there was to choose from.",
    )
    excused: float = Field(
        default=0.0,
        description="The largest error beyond the tolerance that is rounding: the original changes as much when its "
        "inputs are moved by their last bits.",
    )


class KernelRow(Document):
    """One convolution. A kernel is the 2-D slice of a filter that reads one input channel."""

    name: str
    kernels: int
    kernels_kept: int = Field(description="Kernels with a weight that stays.")
    weights: int
    weights_kept: int
    importance_kept: float = Field(description="Share of the layer's importance that the kept weights hold.")
    blocks: int | None = Field(default=None, description="grouped: blocks of output channels.")
    inputs_per_block: int | None = Field(default=None, description="grouped: input channels that each block reads.")
    reason: str | None = Field(default=None, description="Why the layer keeps all of its kernels.")


class KernelReport(Document):
    """Weights inside the convolutions that went after the channels."""

    layout: str
    sparsity: float = Field(description="Asked for in every convolution that can be pruned so.")
    rows: tuple[KernelRow, ...]
    conv_weights_original: int = Field(description="Weights of all convolutions of the original, without biases.")
    conv_weights_kept: int = Field(description="Weights of all convolutions right after the cut that are not zero.")
    note: str = Field(default="", description="What the layout does not gain.")


class MaskSearch(Document):
    """Random masks, scored by the share of validation images that each misclassifies before any training."""

    granularity: Literal["feature_map", "kernel"]
    samples: int
    errors: tuple[float, ...] = Field(description="Of each mask, in the order of the draws.")
    best: int = Field(description="The mask that was kept.")
    control: float = Field(description="Of the mask that keeps the largest L1 norms, at the same counts.")
    seconds: float


class Candidate(Document):
    """An allocation that a search evaluated: within the budget, right after the cut, norms taken anew."""

    cost: float = Field(description="Of the budget's first line, in its unit.")
    top1: float
    loss: float


class AllocationSearch(Document):
    """What a search for an allocation looked at, in its order."""

    method: str
    line: str = Field(description="The line of the budget that `cost` is of.")
    images: int = Field(description="Validation images that scored every candidate.")
    candidates: tuple[Candidate, ...]
    best: int = Field(description="The candidate that was taken, by number from 0.")
    seconds: float


class Parity(Document):
    """The torch form against ONNX Runtime, before training."""

    max_relative_error: float
    tolerance: float
    given_choices: tuple[str, ...] = Field(default=(), description="As in the proof.")
    excused: float = Field(default=0.0, description="As in the proof.")


class ReconstructedLayer(Document):
    """Errors are relative to the variance of the original's output, on calibration images held out of the fit."""

    name: str
    error_before: float
    error_after: float
    ridge: float = Field(description="Chosen on the held-out images; relative to the mean square of the inputs.")


class RecoveryResult(Document):
    """What was done between cut and finetuning."""

    images: int = Field(description="Calibration images; their labels were not used.")
    norms: int = Field(description="BatchNormalizations whose statistics were taken anew.")
    layers: tuple[ReconstructedLayer, ...] = Field(description="Layers whose weights were refitted.")


class EpochRow(Document):
    epoch: int
    learning_rate: float
    train_loss: float = Field(
        description="Of what is trained on: where the original teaches beside the labels, its share is in it, but not "
        "in `validation_loss`. Of epoch 0 measured, not trained."
    )
    validation_loss: float = Field(
        description="Cross-entropy; without labels, the share of the variance of the original's outputs that is missed."
    )
    validation_top1: float | None = Field(description="None without labels.")
    seconds: float


class Training(Document):
    device: str
    processes: int = Field(default=1, description="That trained together, each on a device of this kind.")
    train_samples: int
    validation_samples: int
    precision: str = Field(default="float32", description="In which the steps were computed: float32 or bfloat16.")
    channels_last: bool = Field(default=False, description="Whether images lay channels last in memory.")
    taught: bool | None = Field(
        default=None, description="Whether the original taught, beside the labels or alone. None in older reports."
    )
    retreats: int = Field(
        default=0,
        description="How often the loss left all bounds: the epoch began anew with the best weights until then, at a "
        "tenth of the learning rate.",
    )
    best_epoch: int = Field(description="Chosen on the validation split; 0 is the model before training.")
    judged_on_both: bool = Field(
        default=False,
        description="Whether the best epoch and epoch 0 were compared on as many training images besides: where epoch "
        "0 gets more of the validation images right than of the test images, and not by chance, it comes from a "
        "network that was trained on them.",
    )
    epochs: tuple[EpochRow, ...]


class RoundRow(Document):
    """One round of a schedule: scored, cut, recovered, finetuned."""

    step: int = Field(description="From 1.")
    budget: Budget = Field(description="Of this round, relative to the original.")
    macs: int
    params: int
    macs_ratio: float
    params_ratio: float
    latency_ratio: float | None = Field(default=None, description="Measured, where the budget has a line of latency.")
    proof: Proof
    top1_after_cut: float | None = Field(description="On the test split; None without labels.")
    top1: float | None = Field(description="The same once it is recovered and finetuned.")
    training: Training | None
    seconds: float


ROUNDING = 1e-9
"""What a difference of two figures may be over a bound that it meets exactly: 0.92 - 0.91 is above 0.01."""


class BudgetVerdict(Document):
    name: str
    goal: float
    value: float
    verdict: Literal["met", "missed", "unreachable"]
    reason: str = ""


class Machine(Document):
    cpu: str
    cores: int
    memory_bytes: int
    gpu: str | None
    sandbox: str = Field(description="Tier of isolation in force, such as T0.")
    versions: dict[str, str] = Field(description="Of python and the libraries that computed this report.")


class Artifact(Document):
    name: str
    media_type: str
    size_bytes: int
    sha256: str


class Report(Document):
    version: Literal[1] = 1
    kind: Literal["prune"] = "prune"
    job_id: str
    attempt: int
    spec: Annotated[JobSpec, RECORDED]
    model_name: str
    model_sha256: str = Field(description="Of the uploaded file.")
    onnx_sha256: str | None = Field(
        default=None, description="Of the ONNX file that was pruned: the upload itself, or what was made of it."
    )
    dataset_sha256: str | None
    original: Cost
    pruned: Cost
    budget: tuple[BudgetVerdict, ...]
    accuracy: AccuracyRows | None
    fidelity: FidelityRows | None = Field(
        default=None,
        description="Of all outputs where images have no labels; else of those beside a classifier's scores, if any.",
    )
    latency: tuple[LatencyRow, ...]
    layers: tuple[LayerRow, ...]
    proof: Proof
    kernels: KernelReport | None = None
    random_masks: tuple[MaskSearch, ...] = ()
    search: AllocationSearch | None = Field(default=None, description="Of an allocation that searches.")
    parity: Parity | None
    rounds: tuple[RoundRow, ...] = Field(default=(), description="Of a schedule, the last one as well.")
    regularisation: Training | None = Field(default=None, description="The training before the cut.")
    doomed_left: float | None = Field(
        default=None,
        description="What that training left of the weights that the cut then took: their norm after it, relative to "
        "before.",
    )
    recovery: RecoveryResult | None = None
    training: Training | None
    exports: tuple[ExportedFile, ...] = Field(default=(), description="Files of the model beside pruned.onnx.")
    missing_exports: tuple[MissingFile, ...] = Field(
        default=(), description="Files that were asked for and could not be made, and why."
    )
    warnings: tuple[str, ...]
    machine: Machine
    artifacts: tuple[Artifact, ...] = Field(description="The files beside this report, with their digests.")
    stage_seconds: dict[str, float]
