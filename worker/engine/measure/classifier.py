"""Which output of a model is its class scores, and what has been applied to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx

from worker.engine.errors import EngineError

Activation = Literal["none", "softmax", "log_softmax", "sigmoid", "another"]

_ACTIVATIONS: dict[str, Activation] = {"Softmax": "softmax", "LogSoftmax": "log_softmax", "Sigmoid": "sigmoid"}
_SAME_NUMBERS = frozenset({"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout"})
_BOUNDED = frozenset({"Clip", "Div", "Exp", "HardSigmoid", "Reciprocal", "Softsign", "Tanh"})
_CHOICES = frozenset({"ArgMax", "ArgMin", "ReduceMax", "ReduceMin", "TopK"})
"""What ends in one of these may be a probability already, or the number of a class, and is no logit."""
_QUANTISED = frozenset({"QuantizeLinear", "DequantizeLinear"})
_SMALLEST = np.float64(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Head:
    """Class scores: the graph output (`index`, `name`), the activation at its end, and the value before that."""

    index: int
    name: str
    activation: Activation
    logits: str

    def scores(self, output: np.ndarray, classes: int, images: int) -> np.ndarray:
        """The output for so many images as (N, scores), checked against the number of classes in the data."""
        numbers = output.ndim == 1 and output.dtype.kind != "f"  # of classes, say
        if numbers or not is_scores(output.shape, images):
            raise EngineError(
                "not_a_classifier",
                f"Output {self.name!r} has the shape {tuple(output.shape)} and type {output.dtype} for {images} "
                "images, not one score per image and class.",
                "Labels need an output of (N, classes), or (N, 1) or (N,) for two. With data.labels set to false the "
                "pruned model learns from the original on the images alone.",
            )
        flat = output.reshape(images, -1)
        check_class_count(flat.shape[1], classes, self)
        return flat

    def is_binary(self, scores: int) -> bool:
        """Whether one probability, or its logit, stands for two classes."""
        return scores == 1 and self.activation in ("none", "sigmoid")

    def is_yes_or_no(self, scores: int) -> bool:
        """Whether each score is judged by itself, and not against those of the other classes."""
        return self.activation == "sigmoid" or self.is_binary(scores)


def is_scores(shape: Sequence[int], images: int) -> bool:
    """Whether values of this shape are (N, K), followed by ones perhaps, or (N,) for so many images; () for one."""
    if len(shape) == 0:
        return images == 1
    return shape[0] == images and all(size == 1 for size in shape[2:])


def check_class_count(scores: int, classes: int, head: Head) -> None:
    """Raise where the data has classes for which the model has no score."""
    if scores == 1 and classes == 2 and not head.is_binary(scores):
        raise EngineError(
            "not_a_classifier",
            f"Output {head.name!r} ends in an op behind which a single score may be a probability or its logit.",
            "Let it end in a Sigmoid, or leave that op out. With data.labels set to false the pruned model learns from "
            "the original on the images alone.",
        )
    if scores < classes and not (head.is_binary(scores) and classes == 2):
        raise EngineError(
            "too_many_classes",
            f"The dataset has {classes} classes and output {head.name!r} has {scores} score{'s' * (scores != 1)}.",
            "Use the dataset that the model was trained for. Where it gives no class scores, set data.labels to false: "
            "the pruned model learns from the original on the images alone.",
        )


def find_head(model: onnx.ModelProto, classes: int | None = None) -> Head:
    """The class scores among a model's outputs: the first of `possible_heads`. All that a job does has to name the same
    number of classes, None where the data has none."""
    return possible_heads(model, classes)[0]


def possible_heads(model: onnx.ModelProto, classes: int | None = None) -> tuple[Head, ...]:
    """The outputs that are as likely as each other to be the class scores, one for each value that they come from.

    Of the outputs that static shapes allow to be (N, K), these are the ones that end in an activation and have a score
    per class; if there are none, those with a score per class, then those that end in an activation, then all. One that
    is (N,) comes behind those with a score per class where it ends in a sigmoid and there are two classes, and last
    otherwise. Where no output may be either, it is the first one.
    """
    makers = {output: node for node in model.graph.node for output in node.output}
    heads: dict[float, dict[str, Head]] = {}
    for index, rank, width in _flat_outputs(model):
        head, activated = _ending_in(makers, index, model.graph.output[index].name)
        binary = classes == 2 and head.is_binary(width) and activated  # without an activation it may be any number
        fits = classes is not None and (width == classes or binary)
        likely = 2 * fits + activated if rank == 2 else 1.5 if fits else -1
        heads.setdefault(likely, {}).setdefault(head.logits, head)
    return tuple(heads[max(heads)].values())


def _flat_outputs(model: onnx.ModelProto) -> list[tuple[int, int, int]]:
    """(number, rank, scores) of the outputs that may be (N, K) or (N,), 0 scores where the file does not say; else of
    the first."""
    found = []
    for index, value in enumerate(model.graph.output):
        shape = value.type.tensor_type.shape
        rank = len(shape.dim) if value.type.tensor_type.HasField("shape") else 2
        if rank == 1:
            found.append((index, 1, 1))
        elif rank == 2:
            found.append((index, 2, shape.dim[1].dim_value if shape.dim else 0))
    return found or [(0, 0, 0)]


def _ending_in(makers: Mapping[str, onnx.NodeProto], index: int, name: str) -> tuple[Head, bool]:
    """The output as class scores, and whether it ends in an activation. One whose result is quantised counts, so that
    all files of a model have one head, though its scores are then taken as they are: but for those that are judged each
    by itself, which are probabilities all the same."""
    behind = _behind(makers, name, _SAME_NUMBERS | _QUANTISED)
    activated = behind in makers and makers[behind].op_type in _ACTIVATIONS
    as_it_is = behind == _behind(makers, name, _SAME_NUMBERS)
    if activated and (as_it_is or makers[behind].op_type == "Sigmoid"):
        return Head(index, name, _ACTIVATIONS[makers[behind].op_type], makers[behind].input[0]), True
    bounded = behind in makers and makers[behind].op_type in _BOUNDED | _CHOICES
    return Head(index, name, "another" if bounded else "none", name), activated


def _behind(makers: Mapping[str, onnx.NodeProto], value: str, ops: frozenset[str]) -> str:
    while value in makers and makers[value].op_type in ops:
        value = makers[value].input[0]
    return value


def predicted_classes(head: Head, scores: np.ndarray) -> np.ndarray:
    """The class of each row of scores (N, K), (N,) int64."""
    if head.is_binary(scores.shape[1]):
        return (scores[:, 0] > (0.5 if head.activation == "sigmoid" else 0.0)).astype(np.int64)
    best: np.ndarray = scores.argmax(1)
    return best.astype(np.int64)


def losses(head: Head, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The cross-entropy of each sample, (N,), from scores as the model gives them. Scores that are not finite, such as
    the logarithm of a probability of zero, cost as much as the smallest probability."""
    values = scores.astype(np.float64)
    rows = np.arange(len(labels))
    loss: np.ndarray
    if head.is_binary(scores.shape[1]) and head.activation == "none":
        loss = np.logaddexp(0.0, np.where(labels == 1, -values[:, 0], values[:, 0]))
    elif head.is_binary(scores.shape[1]):
        loss = -_log(np.where(labels == 1, values[:, 0], 1 - values[:, 0]))
    elif head.activation == "softmax":
        loss = -_log(values[rows, labels])
    elif head.activation == "sigmoid":
        others = _log(1 - values).sum(1) - _log(1 - values[rows, labels])
        loss = -(_log(values[rows, labels]) + others) / values.shape[1]
    else:
        with np.errstate(invalid="ignore"):
            shifted = values - values.max(1, keepdims=True)
        loss = _log(np.exp(shifted).sum(1)) - shifted[rows, labels]
    return np.where(np.isfinite(loss), loss, -_log(np.zeros(1)))


def _log(values: np.ndarray) -> np.ndarray:
    """The logarithm, kept finite at zero."""
    logs: np.ndarray = np.log(np.maximum(values, _SMALLEST))
    return logs
