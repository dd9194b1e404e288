"""A model run on batches of images in ONNX Runtime, also where its batch size is fixed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime

from worker.engine.errors import EngineError
from worker.engine.graph.inputs import misfit_hint

_BATCH_SIZE = 64
_WIDER = {"tensor(float16)": np.float16, "tensor(double)": np.float64}


def batch_size(session: onnxruntime.InferenceSession) -> int:
    """The model's own, or one that suits."""
    return _fixed_batch(session) or _BATCH_SIZE


def run_images(
    session: onnxruntime.InferenceSession, images: np.ndarray, outputs: Sequence[str] | None = None
) -> list[np.ndarray]:
    """Outputs for a batch (B, ...), which is filled up by repetition where the model wants more images: `own_rows` cuts
    that off. Raises EngineError where the model does not run on them."""
    wanted, value = _fixed_batch(session), session.get_inputs()[0]
    images = filled_up(images, wanted or 0)
    try:
        return list(session.run(outputs, {value.name: images.astype(_WIDER.get(value.type, images.dtype), copy=False)}))
    except Exception as error:
        raise EngineError(
            "not_runnable",
            f"The model does not run on the dataset's images {images.shape}: {error}.",
            misfit_hint(value.type.removeprefix("tensor(").removesuffix(")")),
        ) from error


def filled_up(images: np.ndarray, size: int) -> np.ndarray:
    """A batch (B, ...) as one of at least `size` images: the last one is repeated."""
    missing = max(size - len(images), 0)
    return np.concatenate([images, np.repeat(images[-1:], missing, axis=0)]) if missing else images


def own_rows(session: onnxruntime.InferenceSession, output: np.ndarray, images: int) -> np.ndarray:
    """An output of `run_images` without the rows that filled up the batch; whole where it has no row per image."""
    wanted = _fixed_batch(session)
    filled_up = wanted is not None and images < wanted and output.ndim > 0 and len(output) == wanted
    return output[:images] if filled_up else output


def _fixed_batch(session: onnxruntime.InferenceSession) -> int | None:
    size = session.get_inputs()[0].shape[0]
    return size if isinstance(size, int) else None
