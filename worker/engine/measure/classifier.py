"""Which output of a model is its class scores, and what has been applied to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx

from worker.engine.errors import EngineError

Activation = Literal["none", "softmax", "log_softmax", "sigmoid"]

_ACTIVATIONS: dict[str, Activation] = {"Softmax": "softmax", "LogSoftmax": "log_softmax", "Sigmoid": "sigmoid"}
_SAME_NUMBERS = frozenset({"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout"})
_SMALLEST = np.float64(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Head:
    """Class scores: the graph output (`index`, `name`), the activation at its end, and the value before that."""

    index: int
    name: str
    activation: Activation
    logits: str

    def scores(self, output: np.ndarray, classes: int) -> np.ndarray:
        """The output as (N, scores), checked against the number of classes in the data."""
        flat = output.reshape(len(output), -1) if output.ndim > 0 else output.reshape(1, -1)
        if output.ndim < 2 or flat.shape[1] != output.shape[1]:
            raise EngineError(
                "not_a_classifier",
                f"Output {self.name!r} has the shape {tuple(output.shape)}, not one score per sample and class.",
                "Accuracy and finetuning with labels need a classifier; other models can be pruned without a dataset.",
            )
        check_class_count(flat.shape[1], classes, self)
        return flat

    def is_binary(self, scores: int) -> bool:
        """Whether one probability stands for two classes."""
        return scores == 1 and self.activation == "sigmoid"


def check_class_count(scores: int, classes: int, head: Head) -> None:
    """Raise where the data has classes for which the model has no score."""
    if scores < classes and not (head.is_binary(scores) and classes == 2):
        raise EngineError(
            "too_many_classes",
            f"The dataset has {classes} classes and output {head.name!r} has {scores} scores.",
            "Use the dataset that the model was trained for.",
        )


def find_head(model: onnx.ModelProto) -> Head:
    """The first output that static shapes allow to be (N, classes), else the first output."""
    outputs = list(model.graph.output)
    ranks = [len(o.type.tensor_type.shape.dim) if o.type.tensor_type.HasField("shape") else 2 for o in outputs]
    index = next((i for i, rank in enumerate(ranks) if rank == 2), 0)
    name = outputs[index].name
    makers = {output: node for node in model.graph.node for output in node.output}
    value = name
    while value in makers and makers[value].op_type in _SAME_NUMBERS:
        value = makers[value].input[0]
    if value in makers and makers[value].op_type in _ACTIVATIONS:
        return Head(index, name, _ACTIVATIONS[makers[value].op_type], makers[value].input[0])
    return Head(index, name, "none", name)


def predicted_classes(head: Head, scores: np.ndarray) -> np.ndarray:
    """The class of each row of scores (N, K), (N,) int64."""
    if head.is_binary(scores.shape[1]):
        return (scores[:, 0] > 0.5).astype(np.int64)
    best: np.ndarray = scores.argmax(1)
    return best.astype(np.int64)


def losses(head: Head, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The cross-entropy of each sample, (N,), from scores as the model gives them. Scores that are not finite, such as
    the logarithm of a probability of zero, cost as much as the smallest probability."""
    values = scores.astype(np.float64)
    rows = np.arange(len(labels))
    loss: np.ndarray
    if head.is_binary(scores.shape[1]):
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
