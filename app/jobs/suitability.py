"""What a job asks for beside what the inspection of its model found: what cannot be done is refused before it runs."""

from collections.abc import Iterator, Sequence
from http import HTTPStatus

from app.errors import ApiError
from models_store.documents.inspection import ModelInspection
from models_store.documents.job_spec import AnySpec, Budget, EstimateSpec, JobSpec, Measuring, SweepSpec

_IMAGE_RANK = 4
_CHANNELS = (3, 1, 4)
_BATCH_SIZE = Budget.model_fields["latency_batch_size"].default
_BATCH_SIZES = Measuring.model_fields["batch_sizes"].default


class NothingToPrune(ApiError):
    """The model has no layer that could become smaller."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "nothing_to_prune"
    hint = "Upload a model with convolutions or matrix products. GET /v1/models/{id}/graph lists its layers."


class FixedBatchSize(ApiError):
    """The job asks for latency at a batch size that the model cannot take."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "fixed_batch_size"
    hint = "Name the model's own batch size, leave it out, or export the model with a dynamic batch dimension."


class WrongNormalisation(ApiError):
    """`data.mean` and `data.std` are for another number of channels than the model takes."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "normalisation_mismatch"
    hint = "Give one value of each for all channels, or one per channel."


SUITABILITY_ERRORS = (NothingToPrune, FixedBatchSize, WrongNormalisation)


def check(spec: AnySpec, model: ModelInspection) -> None:
    """Raises SUITABILITY_ERRORS."""
    if model.macs == 0 and not any(layer.prunable_channels for layer in model.layers):
        raise NothingToPrune(f"{spec.model_id} has no multiply-accumulates: there is nothing in it to prune.")
    _check_batch_sizes(spec, fixed_batch(model))
    channels, given = image_channels(model), len(spec.data.mean)
    if spec.dataset_id is not None and channels is not None and given not in (1, channels):
        raise WrongNormalisation(
            f"data.mean and data.std have {given} values each, and {spec.model_id} takes images of "
            f"{channels} channel{'s' if channels > 1 else ''}."
        )


def fixed_batch(model: ModelInspection) -> int | None:
    """The number of samples that the model takes at a time; None where it takes any number, or it is not known: the
    first dimension of a sound, or of an image without a batch axis, may be anything."""
    shapes = [tensor.shape for tensor in model.inputs if tensor.shape]
    if not shapes or len(shapes[0]) < _IMAGE_RANK or any(not isinstance(shape[0], int) for shape in shapes):
        return None
    return int(shapes[0][0] or 0)


def image_channels(model: ModelInspection) -> int | None:
    """As workers read the only input of a model of images: channels are where 3, 1 or 4 stands, in second place in
    doubt. None where they are not declared."""
    shape = model.inputs[0].shape if len(model.inputs) == 1 else None
    if shape is None or len(shape) != _IMAGE_RANK:
        return None
    last = shape[1] not in _CHANNELS and shape[3] in _CHANNELS
    channels = shape[3] if last else shape[1]
    return channels if isinstance(channels, int) and channels > 0 else None


def _check_batch_sizes(spec: AnySpec, fixed: int | None) -> None:
    for place, sizes in _batch_sizes(spec):
        wrong = [size for size in sizes if size != fixed]
        if fixed is not None and wrong:
            asked = ", ".join(map(str, wrong))
            raise FixedBatchSize(
                f"{spec.model_id} has a fixed batch size of {fixed}, and {place} asks for latency at {asked}."
            )


def _batch_sizes(spec: AnySpec) -> Iterator[tuple[str, Sequence[int]]]:
    """Those that differ from the defaults, which every model follows with its own."""
    budgets = {"budget": spec.budget} if isinstance(spec, JobSpec | EstimateSpec) else {}
    if isinstance(spec, SweepSpec):
        budgets = {f"budgets.{number}": budget for number, budget in enumerate(spec.budgets)}
    for place, budget in budgets.items():
        if budget.bounds_latency and budget.latency_batch_size != _BATCH_SIZE:
            yield f"{place}.latency_batch_size", (budget.latency_batch_size,)
    if isinstance(spec, JobSpec | SweepSpec) and spec.measuring.batch_sizes != _BATCH_SIZES:
        yield "measuring.batch_sizes", spec.measuring.batch_sizes
