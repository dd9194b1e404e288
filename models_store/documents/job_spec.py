"""What a user asks of a job: the body of `POST /v1/jobs`, kept unchanged in the job's row."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import (
    Discriminator,
    Field,
    FiniteFloat,
    Tag,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from models_store.catalogue import Method, conflicts, find
from models_store.documents.base import Document
from models_store.documents.export_spec import Export
from models_store.documents.faults import sentence
from models_store.documents.kernels import Kernels
from models_store.documents.methods import DEFAULTS, ChoosesMethods, InCatalogue, MethodOptions, refuse
from models_store.documents.random_masks import RandomMasks
from models_store.documents.recorded import RECORDED, asked_for, is_recorded
from models_store.documents.recovery_spec import Recovery, Regularisation
from models_store.documents.schedule import Schedule

DataKind: TypeAlias = Literal["none", "images", "labels"]
Ratio = Annotated[float, Field(gt=0, le=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
GraphName = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""The pattern keeps out what is no text, too, which no answer could hold."""


class JobKind(StrEnum):
    """`inspect` jobs are made by uploads and `masks` jobs by jobs with random masks, never by users."""

    INSPECT = "inspect"
    PRUNE = "prune"
    ESTIMATE = "estimate"
    SWEEP = "sweep"
    MASKS = "masks"


class Budget(Document):
    """What may remain after pruning: any mix of lines, of which all must be kept. Ratios are pruned / original."""

    macs_ratio: Ratio | None = Field(default=None, description="MACs kept: 0.4 keeps 40 % of the multiply-accumulates.")
    params_ratio: Ratio | None = Field(default=None, description="Parameters kept.")
    size_bytes: int | None = Field(default=None, ge=1, le=2**53, description="Of the pruned ONNX file.")
    latency_ratio: Ratio | None = Field(
        default=None, description="Latency kept, as measured in ONNX Runtime on the worker."
    )
    latency_ms: float | None = Field(default=None, gt=0, allow_inf_nan=False, description="Median latency.")
    latency_batch_size: int = Field(
        default=1,
        ge=1,
        le=4096,
        description="At which the budget's latency is measured; 1 stands for a model's own where that is fixed.",
    )
    latency_threads: int = Field(default=1, ge=1, le=256, description="With which the budget's latency is measured.")
    max_accuracy_drop: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Top-1 accuracy that may be lost on the test split: 0.01 is one point. Needs a dataset. By itself "
        "it asks for as few MACs as validation allows before training; beside other lines it is only judged.",
    )

    @property
    def bounds_latency(self) -> bool:
        return self.latency_ratio is not None or self.latency_ms is not None

    def lines(self) -> dict[str, float]:
        """The lines that were asked for, by name."""
        names = ("macs_ratio", "params_ratio", "size_bytes", "latency_ratio", "latency_ms", "max_accuracy_drop")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    @model_validator(mode="after")
    def _has_a_line(self) -> "Budget":
        if not self.lines():
            raise ValueError("a budget needs at least one line, such as macs_ratio")
        return self


class Pruning(ChoosesMethods):
    """Which channels go: methods by name, see `GET /v1/methods`."""

    criterion: Annotated[str, InCatalogue("criterion")] | None = Field(
        default=None,
        description="How important each channel is. Left out: `refit` where the job has images, else `l2`; `l1`, the "
        "paper's, with the allocation `heuristic`.",
    )
    criterion_options: MethodOptions = DEFAULTS
    allocation: Annotated[str, InCatalogue("allocation")] | None = Field(
        default=None,
        description="How much goes where. Left out: `sensitivity` where the criterion is left out and the job has "
        "images, else `latency` where the budget bounds latency, else `uniform`.",
    )
    allocation_options: MethodOptions = DEFAULTS
    round_to: int = Field(
        default=8,
        ge=1,
        le=128,
        description="Channel counts become multiples of this, or of a half, a quarter, … in layers with less than four "
        "times as many channels.",
    )
    min_ratio: float = Field(default=0.05, ge=0, le=1, description="Smallest share of a layer's channels to keep.")
    exclude: tuple[GraphName, ...] = Field(
        default=(), max_length=10_000, description="Names of nodes or initializers whose output channels stay."
    )
    allow_inexact: bool = Field(
        default=False,
        description="Also prune channels that a normalisation averages over (LayerNormalization): "
        "the pruned network then differs from the masked one by that norm's statistics.",
    )

    def completed(self, *, images: bool, latency: bool) -> Self:
        """With methods, and all their options, in place of what was left out: the best for the data and the budget."""
        criterion, allocation = self.criterion, self.allocation
        if criterion is None and allocation == "heuristic":
            criterion = "l1"
        elif criterion is None and images:
            criterion, allocation = "refit", allocation or "sensitivity"
        if allocation is None and latency:
            allocation = "latency"
        chosen = {
            "criterion": criterion or "l2",
            "criterion_options": self.criterion_options,
            "allocation": allocation or "uniform",
        }
        return self.model_validate({**self.model_dump(), **chosen})


class Data(Document):
    """How the dataset's images become the model's input, and how they are split. Images of another size or other
    colours than the input's are resized, without keeping the aspect ratio, and converted."""

    mean: tuple[FiniteFloat, ...] = Field(
        default=(0.0,),
        min_length=1,
        max_length=16,
        description="Per channel, or one for all, on values scaled to 0..1; floating-point numbers in an `.npz` are "
        "taken as they are, without scaling.",
    )
    std: tuple[Annotated[FiniteFloat, Field(gt=0)], ...] = Field(
        default=(1.0,), min_length=1, max_length=16, description="Per channel, or one for all, in the unit of `mean`."
    )
    labels: bool = Field(
        default=True,
        description="false uses the images alone, as with a dataset that has no labels: the pruned model learns from "
        "the original, whatever its outputs mean, and the report says how far they are from the original's.",
    )
    test_fraction: Fraction = Field(
        default=0.2, description="Share held out for testing where the dataset has no test split of its own."
    )
    validation_fraction: Fraction = Field(
        default=0.1, description="Share of the training images that chooses the best epoch."
    )


def _word_or_share(value: object, validate: ValidatorFunctionWrapHandler) -> object:
    """In one sentence what is wrong, where pydantic has one for each of both."""
    try:
        return validate(value)
    except ValidationError as error:
        raise PydanticCustomError("word_or_share", "Input should be 'auto' or a number from 0 to 1") from error


WordOrShare = Annotated[Literal["auto"] | Annotated[float, Field(ge=0, le=1)], WrapValidator(_word_or_share)]


class Finetuning(Document):
    """Training after the cut. `epochs: 0` skips it."""

    epochs: int = Field(default=3, ge=0, le=1000)
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = Field(default=0.01, gt=0, le=10)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0, le=1)
    gradient_clipping: float = Field(
        default=0.02,
        ge=0,
        le=1,
        description="Where no norm follows a layer (BatchNormalization folded into convolutions, say), the gradient of "
        "each of its filters has at most this share of the filter's norm; 0 clips nothing.",
    )
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    batch_size: int = Field(default=128, ge=1, le=65_536)
    crop_padding: int = Field(
        default=0,
        ge=0,
        le=64,
        description="Random crop after padding by this many pixels. Recovery looks at such images, too: the norms of a "
        "network go by what it is trained on.",
    )
    horizontal_flip: bool = Field(
        default=False, description="Half of the images, by lot, are mirrored; for recovery, too."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="auto: a short trial on the worker's device chooses what is fastest, if there are steps enough for "
        "it to pay. bfloat16 is mixed precision; weights, validation and the exported model are float32.",
    )
    distillation: WordOrShare = Field(
        default="auto",
        description="The share of the loss that is the divergence from the original's class scores instead of from the "
        "labels. auto: half of it for images that the original classifies rightly, nothing for others. With 1 the "
        "labels choose the epoch and nothing else. Without labels the original is all there is.",
    )
    temperature: float = Field(default=4.0, gt=0, le=100, description="Softens both sides of the distillation.")

    @model_validator(mode="after")
    def _each_option_has_its_use(self) -> Self:
        if self.distillation == 0 and asked_for(self, "temperature"):
            raise ValueError("finetuning.temperature is about distillation: set that above 0, or leave temperature out")
        if self.optimizer == "adamw" and asked_for(self, "momentum"):
            raise ValueError("finetuning.momentum is about optimizer sgd: choose that, or leave momentum out")
        return self


class Measuring(Document):
    """Latency of original and pruned, interleaved in one process."""

    batch_sizes: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(
        default=(1,),
        min_length=1,
        max_length=8,
        description="The default stands for a model's own batch size where that is fixed.",
    )
    threads: int = Field(default=1, ge=1, le=256)
    rounds: int = Field(default=30, ge=3, le=10_000)

    @field_validator("batch_sizes")
    @classmethod
    def _each_once(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        twice = sorted({size for size in sizes if sizes.count(size) > 1})
        if twice and not is_recorded():
            raise ValueError(f"more than once: {', '.join(map(str, twice))}; name each size once")
        return sizes


class Priority(StrEnum):
    """How soon a job is claimed. Within one priority, projects take turns."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Work(Document):
    """What every kind of job that users ask for has in common."""

    version: Literal[1] = 1
    model_id: str = Field(pattern=r"^mdl_[0-9a-f]{32}$")
    dataset_id: str | None = Field(
        default=None,
        pattern=r"^dst_[0-9a-f]{32}$",
        description="Without one the job is data-free: no training, no accuracy.",
    )
    pruning: Pruning = Pruning()
    data: Data = Data()
    recovery: Recovery = Recovery()
    finetuning: Finetuning = Finetuning()
    seed: int = Field(default=0, ge=0, lt=2**31)
    deadline_s: int = Field(default=24 * 3600, ge=1, le=30 * 24 * 3600, description="Running time, not queue time.")
    priority: Priority = Field(default=Priority.NORMAL, description="Before or after other jobs that wait.")
    label: str | None = Field(default=None, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")

    @model_validator(mode="after")
    def _mean_and_std_match(self) -> Self:
        if len(self.data.mean) != len(self.data.std):
            raise ValueError("data.mean and data.std must have the same length")
        return self

    @model_validator(mode="after")
    def _left_out_is_chosen(self) -> Self:
        try:
            self.__dict__["pruning"] = self._completed_pruning()
        except ValidationError as error:  # options without a name are those of the method that is chosen
            refuse(((("pruning", *fault["loc"]), fault["msg"]) for fault in error.errors()), "bad_option")
        return self

    def _completed_pruning(self) -> Pruning:
        """What was left out of it is chosen where the budget and the data are known, else stays open."""
        return self.pruning

    @model_validator(mode="after")
    def _data_suffice(self) -> Self:
        self.check_data("none" if self.dataset_id is None else "labels" if self.data.labels else "images")
        return self

    def check_data(self, data: DataKind) -> None:
        """Raises ValidationError where the chosen methods do not work with each other, or what is asked for not with
        data like these."""
        found = conflicts(self.methods(), data)
        refuse(((tuple(method.asked_for_by.split(".")), sentence) for method, sentence in found), "incompatible")

    def methods(self) -> list[Method]:
        """Of the catalogue, those that the job asks for."""
        distilled = [find("recovery", "distillation")] if self.finetuning.distillation not in ("auto", 0) else []
        return [*self.pruning.methods().values(), *self.recovery.methods(), *distilled]


class PruningWork(Work):
    """What a job that makes pruned models may ask for."""

    kernels: Kernels | None = Field(default=None, description="Weights inside the convolutions, after the channels.")
    random_masks: RandomMasks | None = Field(
        default=None, description="Draw what goes at random, and keep the draw that does least harm."
    )
    regularisation: Regularisation | None = Field(default=None, description="Training before the cut.")
    schedule: Schedule | None = Field(default=None, description="Several rounds of pruning and finetuning, not one.")
    export: Export = Export()
    measuring: Measuring = Measuring()

    @model_validator(mode="after")
    def _safetensors_hold_the_network(self) -> Self:
        grouped = self.kernels is not None and self.kernels.layout == "grouped"
        if grouped and self.export.safetensors and not is_recorded():
            raise ValueError(
                "export.safetensors holds weights alone, and not which channels the blocks of grouped kernels read: "
                "leave it out, or choose another kernels.layout"
            )
        return self

    def methods(self) -> list[Method]:
        chosen = super().methods()
        if self.kernels is not None:
            chosen.append(find("granularity", self.kernels.layout))
        if self.regularisation is not None:
            chosen.append(find("recovery", self.regularisation.method))
        if self.schedule is not None:
            chosen.append(find("recovery", "iterative"))
        return chosen


class JobSpec(PruningWork):
    """One pruned model."""

    kind: Literal["prune"] = "prune"
    budget: Budget

    def _completed_pruning(self) -> Pruning:
        return self._completed_for(images=self.dataset_id is not None)

    def _completed_for(self, *, images: bool) -> Pruning:
        # Masks are drawn at the same rates everywhere, as in the paper.
        drawn = self.random_masks is not None and self.random_masks.of_channels
        return self.pruning.completed(images=images and not drawn, latency=self.budget.bounds_latency and not drawn)

    @model_validator(mode="after")
    def _random_masks_fit(self) -> Self:
        masks = self.random_masks
        if masks is None:
            return self
        if masks.of_kernels and (self.kernels is None or self.kernels.layout != "free"):
            raise ValueError("random_masks of kernels are free in form: set kernels.layout to free, and its sparsity")
        keeps_all = all(name.endswith("_ratio") and value == 1 for name, value in self.budget.lines().items())
        if masks.of_channels and (keeps_all or self.budget.macs_ratio == 1):
            raise ValueError("random_masks of feature maps need something to remove: set budget.macs_ratio below 1")
        return self

    @model_validator(mode="after")
    def _schedule_fits(self) -> Self:
        if self.schedule is None:
            return self
        if self.regularisation is not None or self.random_masks is not None:
            other = "regularisation" if self.regularisation is not None else "random_masks"
            raise ValueError(
                f"{other} prepares or chooses one cut, and a schedule makes several: leave one of them out"
            )
        lines = set(self.budget.lines())
        if lines & {"size_bytes", "latency_ms"} or lines == {"max_accuracy_drop"}:
            raise ValueError(
                "a schedule goes towards ratios: set budget.macs_ratio, params_ratio or latency_ratio alone"
            )
        return self

    @model_validator(mode="after")
    def _int8_has_images(self) -> Self:
        if self.export.int8 and self.dataset_id is None:
            raise ValueError("export.int8 needs a dataset to calibrate on")
        return self

    @model_validator(mode="after")
    def _latency_counts(self) -> Self:
        """Where latency is measured for the budget matters to its lines, to allocations by latency, and to a sweep that
        measures there."""
        budget, measuring = self.budget, self.measuring
        chosen_by = budget.bounds_latency or any("latency" in method.uses for method in self.methods())
        measured = budget.latency_threads == measuring.threads and budget.latency_batch_size in measuring.batch_sizes
        if not (chosen_by or measured or is_recorded()):
            names = ("latency_batch_size", "latency_threads")
            text = "nothing in this budget is about latency: set latency_ratio or latency_ms, or see `measuring`"
            idle = [name for name in names if getattr(budget, name) != Budget.model_fields[name].default]
            refuse(((("budget", name), text) for name in idle), "no_effect")
        return self

    @model_validator(mode="after")
    def _norms_can_stay(self) -> Self:
        if self.recovery.bn_reestimation is False and self.reconstructs and not is_recorded():
            text = "reconstruction takes the norms anew, too: set recovery.reconstruction to false, or leave this out"
            refuse([(("recovery", "bn_reestimation"), text)], "no_effect")
        return self

    @property
    def reconstructs(self) -> bool:
        """Whether the weights that remain are refitted, where there are images to do so."""
        return self.kernels is None if self.recovery.reconstruction is None else self.recovery.reconstruction

    @property
    def trains(self) -> bool:
        """Whether any stage trains the network."""
        asked_for = self.finetuning.epochs > 0 or self.schedule is not None or self.regularisation is not None
        return self.dataset_id is not None and asked_for

    def check_data(self, data: DataKind) -> None:
        if data != "labels":
            if self.budget.max_accuracy_drop is not None:
                refuse([(("budget", "max_accuracy_drop"), "accuracy is measured on a dataset with labels")], "no_data")
            if self.random_masks is not None:
                text = "masks are scored by what they misclassify: the job needs a dataset_id, and labels"
                refuse([(("random_masks",), text)], "no_data")
        super().check_data(data)


class EstimateSpec(Work):
    """What pruning would cost and gain, without any training and without a pruned model."""

    kind: Literal["estimate"]
    budget: Budget = Field(
        default=Budget(macs_ratio=0.5), description="Of the prune job whose duration and memory are forecast."
    )
    keep_ratios: tuple[Fraction, ...] = Field(
        default=(0.75, 0.5, 0.25),
        min_length=1,
        max_length=16,
        description="Shares of its channels that each layer keeps in turn, all others whole.",
    )
    macs_ratios: tuple[Ratio, ...] = Field(
        default=(0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2),
        min_length=1,
        max_length=64,
        description="Budgets of the curve of accuracy, MACs and latency.",
    )
    images: int = Field(
        default=64,
        ge=1,
        le=10_000,
        description="Validation images to run the network on; 2 random inputs if none.",
    )

    def _completed_pruning(self) -> Pruning:
        return self.pruning.completed(images=self.dataset_id is not None, latency=self.budget.bounds_latency)

    @model_validator(mode="after")
    def _accuracy_needs_data(self) -> Self:
        if self.budget.max_accuracy_drop is not None:
            text = "an estimate has no test set to keep an accuracy on: name MACs, parameters, size or latency"
            refuse([(("budget", "max_accuracy_drop"), text)], "not_estimated")
        return self


class SweepSpec(PruningWork):
    """The same pruning to several budgets, each as a prune job of its own, and the front of the best."""

    kind: Literal["sweep"]
    budgets: tuple[Budget, ...] = Field(min_length=2, max_length=64, description="One point of the front each.")

    def jobs(self) -> tuple[JobSpec, ...]:
        """The prune jobs that the points are."""
        return tuple(self._job(budget) for budget in self.budgets)

    def _job(self, budget: Budget) -> JobSpec:
        return JobSpec.model_validate({**self.model_dump(exclude={"kind", "budgets"}), "budget": budget})

    @model_validator(mode="after")
    def _points_differ(self) -> Self:
        first: dict[Budget, int] = {}
        for number, budget in enumerate(self.budgets):
            if first.setdefault(budget, number) != number and not is_recorded():
                text = f"the same budget as budgets.{first[budget]}: leave one of them out"
                refuse([(("budgets", number), text)], "twice")
        return self

    @model_validator(mode="after")
    def _points_are_jobs(self) -> Self:
        """What a job of one point would be refused for is told at that point's place, and what all would be, once."""
        refused: dict[tuple[tuple[str | int, ...], str], list[int]] = {}
        for number, budget in enumerate(self.budgets):
            try:
                self._job(budget)
            except ValidationError as error:
                for fault in error.errors():
                    refused.setdefault((fault["loc"], sentence(fault)), []).append(number)
        told: list[tuple[tuple[str | int, ...], str]] = []
        for (place, text), numbers in refused.items():
            if place[:1] == ("budget",) or (not place and len(numbers) < len(self.budgets)):
                told += [(("budgets", number, *place[1:]), text) for number in numbers]
            else:
                told.append((place, text))
        refuse(told, "bad_point")
        return self

    def check_data(self, data: DataKind) -> None:
        if data != "labels":
            text = "a front is of accuracies, which are measured on a dataset with labels"
            refuse([(("dataset_id",), text)], "no_data")
        super().check_data(data)


AnySpec: TypeAlias = JobSpec | EstimateSpec | SweepSpec


UNKNOWN_KIND = "unknown_kind"
"""Type of the error about a `kind` that is none."""


def _kind_of(body: object) -> str | None:
    """What is no object is refused as one kind of job, in that kind's words."""
    kind = body.get("kind", "prune") if isinstance(body, Mapping) else getattr(body, "kind", "prune")
    return kind if isinstance(kind, str) else None


NewJob: TypeAlias = Annotated[
    Annotated[JobSpec, Tag("prune")] | Annotated[EstimateSpec, Tag("estimate")] | Annotated[SweepSpec, Tag("sweep")],
    Discriminator(
        _kind_of,
        custom_error_type=UNKNOWN_KIND,
        custom_error_message="there is no such kind of job; it is prune (the default), estimate or sweep",
    ),
]
"""The body of `POST /v1/jobs`; without a `kind` it is a prune job."""

NEW_JOB: TypeAdapter[AnySpec] = TypeAdapter(NewJob)

AcceptedJob: TypeAlias = Annotated[NewJob, RECORDED]
"""The spec of a job that waits, perhaps since a version with fewer rules."""

ACCEPTED_JOB: TypeAdapter[AnySpec] = TypeAdapter(AcceptedJob)
