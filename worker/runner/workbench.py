"""What the stages of one attempt share: the order, the files, and what is worked out once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
import onnx
from pydantic import ValidationError

from models_store.documents.base import Document
from models_store.documents.job_spec import EstimateSpec, JobSpec
from models_store.documents.report import RoundRow
from worker.engine.allocation import Memory
from worker.engine.criteria import Calibration
from worker.engine.data import DataOptions, Dataset, InputSpec, open_dataset
from worker.engine.graph import Analysis, analyze, load_model
from worker.engine.graph.inputs import declared_shape
from worker.engine.measure.images import filled_up
from worker.order import InputFile, Order
from worker.runner.checkpoint import Checkpoint
from worker.runner.interruption import Interruption
from worker.runner.voice import Voice
from worker.work_folder import WorkFolder

if TYPE_CHECKING:
    from worker.runner.crew import Crew

D = TypeVar("D", bound=Document)

_REAL_SAMPLES, _MOST_REAL_BYTES = 4, 64 * 2**20


@dataclass(frozen=True)
class Stage(Generic[D]):
    """One step of the pipeline: `run` returns the document that later stages read.

    What a stage leaves for later ones lies in the work folder's `state` and `out`, all of it: another attempt may go on
    after any stage, in a process that has seen none of those before.
    """

    name: str
    document: type[D]
    run: Callable[[Workbench], D]
    reason_to_skip: Callable[[Workbench], str | None] = lambda _: None


@dataclass(frozen=True)
class Left:
    """What a cut begins with, relative to the original."""

    macs: float = 1.0
    params: float = 1.0
    latency: float = 1.0


class Workbench:
    """Documents and model files lie in the work folder; the analysis of the original is kept in memory."""

    def __init__(
        self, order: Order, folder: WorkFolder, voice: Voice, step: int | None = None, crew: Crew | None = None
    ) -> None:
        """`step`: the round of a schedule that the stages work on; None for the last one, and for a single cut.
        `crew`: the processes that train together; None where this one is alone."""
        if not isinstance(order.spec, JobSpec | EstimateSpec) or order.model is None:
            raise ValueError("a job on a model has a spec and a model")
        self.order = order
        self.folder = folder
        self.step = step
        self.crew = crew
        self._analyses: dict[Path, Analysis] = {}
        self.voice = voice
        self.work: JobSpec | EstimateSpec = order.spec
        self.model_file: InputFile = order.model
        self.memory = Memory()
        self.interruption = Interruption()
        self.may_spread = True
        """False where a stage cannot be begun again from its start."""
        self._checkpoints = Checkpoint(folder)
        if step is None and self._seconds_path.exists():  # a round's voice is that of the attempt, which knows them
            voice.stage_seconds = json.loads(self._seconds_path.read_bytes())

    @property
    def spec(self) -> JobSpec:
        """Of a prune job."""
        if not isinstance(self.work, JobSpec):
            raise ValueError(f"this is a job of kind {self.work.kind}")
        return self.work

    @property
    def estimated(self) -> EstimateSpec:
        """Of an estimate job."""
        if not isinstance(self.work, EstimateSpec):
            raise ValueError(f"this is a job of kind {self.work.kind}")
        return self.work

    @property
    def regularised_path(self) -> Path:
        """The original trained to do without what will be cut, where the job asked for that."""
        return self.folder.state / "regularised.onnx"

    @property
    def cut_path(self) -> Path:
        """The model right after surgery."""
        return self._own("cut.onnx")

    @property
    def recovered_path(self) -> Path:
        """The cut model after BN re-estimation or reconstruction, where the job asked for them."""
        return self._own("recovered.onnx")

    @property
    def start_path(self) -> Path:
        """The model that finetuning starts from."""
        return self.recovered_path if self.recovered_path.exists() else self.cut_path

    @property
    def final_path(self) -> Path:
        """The finetuned model."""
        return self._own("final.onnx")

    @property
    def masks_path(self) -> Path:
        """The weights of the cut model that are to stay zero, as .npz; absent where there are none."""
        return self._own("masks.npz")

    @property
    def allocated_path(self) -> Path:
        """The estimate before random masks are drawn to its counts."""
        return self._own("allocated.json")

    def mask_draws_path(self, granularity: str) -> Path:
        """What random masks of a granularity are drawn to."""
        return self.folder.state / f"masks_{granularity}.json"

    @property
    def best_path(self) -> Path:
        """The model that the job will hand out: finetuned, recovered, or as it was cut."""
        return self.final_path if self.final_path.exists() else self.start_path

    @property
    def original_predictions_path(self) -> Path:
        """The original's class for each test sample, as .npy."""
        return self.folder.state / "original_predictions.npy"

    @cached_property
    def original(self) -> onnx.ModelProto:
        return load_model(self.model_file.path)

    def in_round(self, step: int, spec: JobSpec) -> Workbench:
        """A bench for the stages of a round, which leave their files beside those of this one."""
        bench = Workbench(self.order.model_copy(update={"spec": spec}), self.folder, self.voice, step, self.crew)
        bench.dataset, bench.interruption = self.dataset, self.interruption
        return bench

    def round_path(self, step: int) -> Path:
        """The model that a round left."""
        return self.folder.state / f"round{step}.onnx"

    def round_row_path(self, step: int) -> Path:
        return self.folder.state / f"round{step}.json"

    def round_row(self, step: int) -> RoundRow:
        """What the report says of a round that is over."""
        return RoundRow.model_validate_json(self.round_row_path(step).read_bytes())

    def own_files(self) -> list[Path]:
        """What the stages of this round have left, which nothing needs after it."""
        return sorted(self.folder.state.glob(f"{self._prefix}*")) if self._prefix else []

    @property
    def base_path(self) -> Path:
        """The model that is cut: the original, or what the round before left."""
        return self.round_path(self._rounds_before) if self._rounds_before else self.model_file.path

    @property
    def left(self) -> Left:
        """What the rounds before left of the original."""
        if not self._rounds_before:
            return Left()
        row = self.round_row(self._rounds_before)
        return Left(row.macs_ratio, row.params_ratio, row.latency_ratio or 1.0)

    @property
    def base(self) -> onnx.ModelProto:
        return load_model(self.base_path) if self._rounds_before else self.original

    @property
    def _rounds_before(self) -> int:
        """As far as there are any: the first stages see the original."""
        if self.step is not None:
            return self.step - 1
        schedule = self.work.schedule if isinstance(self.work, JobSpec) else None
        last = schedule.steps - 1 if schedule is not None else 0
        return last if last and self.round_row_path(last).exists() else 0

    @property
    def _prefix(self) -> str:
        return "" if self.step is None else f"round{self.step}-"

    def _own(self, name: str) -> Path:
        return self.folder.state / f"{self._prefix}{name}"

    @property
    def analysis(self) -> Analysis:
        """Of the model that is cut."""
        path = self.base_path
        if path not in self._analyses:
            self._analyses[path] = self._analysis(self.base)
        return self._analyses[path]

    @cached_property
    def whole_analysis(self) -> Analysis:
        """Of the original."""
        if not self._rounds_before:
            return self.analysis
        pruning = self.work.pruning
        return analyze(self.original, allow_inexact=pruning.allow_inexact, exclude=pruning.exclude)

    @property
    def model_to_cut(self) -> onnx.ModelProto:
        """The base, or what training before the cut made of it."""
        return load_model(self.regularised_path) if self.regularised_path.exists() else self.base

    def analysis_to_cut(self) -> Analysis:
        """Of the weights that the cut is made in: the original's, or what training before the cut made of them. Groups
        are the same."""
        return self._analysis(self.model_to_cut) if self.regularised_path.exists() else self.analysis

    def _analysis(self, model: onnx.ModelProto) -> Analysis:
        pruning = self.work.pruning
        analysis = analyze(model, allow_inexact=pruning.allow_inexact, exclude=pruning.exclude)
        for units, reason in self._left_alone():
            analysis = analysis.without(tuple(units), reason)
        return analysis

    def leave_alone(self, units: tuple[int, ...], reason: str) -> None:
        """Pin units that turned out not to be prunable; groups are numbered anew, so the estimate has to be, too."""
        self._left_alone_path.write_text(json.dumps([*self._left_alone(), (units, reason)]))
        self.allocated_path.unlink(missing_ok=True)
        self._analyses[self.base_path] = self.analysis.without(units, reason)

    def _left_alone(self) -> list[tuple[list[int], str]]:
        path = self._left_alone_path
        return json.loads(path.read_bytes()) if path.exists() else []

    @cached_property
    def dataset(self) -> Dataset | None:
        """The job's images, split by its seed; None for a data-free job."""
        if self.order.dataset is None:
            return None
        options = DataOptions(**self.work.data.model_dump())
        spec = InputSpec.of(self.original)
        return open_dataset(self.order.dataset.path, spec, options, self.work.seed, self.folder.tmp)

    def calibration(self, samples: int) -> Calibration | None:
        """Training images in an order that the job's seed decides, with labels if there are any; None without data."""
        if self.dataset is None:
            return None
        rng = np.random.default_rng([self.work.seed, 3])
        drawn, labelled = self.dataset.train.shuffled(rng)[:samples], self.dataset.labelled
        return Calibration(drawn, drawn.labels, len(self.dataset.classes)) if labelled else Calibration(drawn)

    def real_inputs(self, batches: int = 1) -> list[dict[str, np.ndarray]]:
        """Small batches of validation images, at most so many, fit for the model's input, filled up where there are
        fewer than its fixed batch size; none without data."""
        if self.dataset is None:
            return []
        (value,) = self.analysis.graph.inputs
        batch = declared_shape(value) or [None]
        fixed = batch[0] if isinstance(batch[0], int) else 0
        found: list[dict[str, np.ndarray]] = []
        for images, _ in islice(self.dataset.validation.batches(fixed or _REAL_SAMPLES), batches):
            found.append({value.name: filled_up(images, fixed)})
            if len(found) * images.nbytes > _MOST_REAL_BYTES:
                break
        return found

    def write(self, stage: Stage[D], document: D) -> None:
        self._path(stage).write_text(document.model_dump_json())

    def has(self, stage: Stage[D]) -> bool:
        """Whether the stage has run, in this attempt or in an earlier one of the same version."""
        try:
            return self.read_if_run(stage) is not None
        except ValidationError:
            return False

    def checkpoint(self) -> None:
        """Have what is in the work folder now kept for another attempt."""
        self._seconds_path.write_text(json.dumps(self.voice.seconds_so_far()))
        self.voice.checkpoint(self._checkpoints.files())

    def read(self, stage: Stage[D]) -> D:
        """The document of a stage that ran."""
        return stage.document.model_validate_json(self._path(stage).read_bytes())

    def read_if_run(self, stage: Stage[D]) -> D | None:
        """The document of a stage, None where the stage was skipped."""
        return self.read(stage) if self._path(stage).exists() else None

    @property
    def training_path(self) -> Path:
        """The checkpoint of a training that is not finished."""
        return self._own("training.safetensors")

    @property
    def _seconds_path(self) -> Path:
        return self.folder.state / "stage_seconds.json"

    @property
    def _left_alone_path(self) -> Path:
        return self._own("left_alone.json")

    def _path(self, stage: Stage[D]) -> Path:
        return self._own(f"{stage.name}.json")
