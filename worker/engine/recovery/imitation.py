"""Learning from the original alone: no label is needed, so any task and any number of outputs will do.

The pruned network is to give what the original gives, before the activations at its ends: regression on logits (Ba &
Caruana, "Do Deep Nets Really Need to be Deep?", NeurIPS 2014, eq. 1; Kim et al., IJCAI 2021, find it better than the
softened divergence). Each feature counts by the original's variance in it, so that box coordinates in pixels do not
outweigh scores in 0..1. Ops that choose (NonMaxSuppression, TopK, If) pass no gradient: what they are given is
compared in place of what they return.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import onnx
import torch

from worker.engine.errors import EngineError
from worker.engine.graph.onnx_graph import OnnxGraph, bodies_of
from worker.engine.recovery.registry import RECOVERIES
from worker.engine.torch_form import TorchForm
from worker.engine.torch_form.failures import as_engine_error

NOTHING_TO_IMITATE = "nothing_to_imitate"
_CHOOSING = frozenset(
    ["ArgMax", "ArgMin", "Compress", "Hardmax", "NonMaxSuppression", "NonZero", "RoiAlign", "TopK", "Unique"]
)
_ENDS = frozenset(
    [
        *("Cast", "Dropout", "Flatten", "HardSigmoid", "Identity", "LogSoftmax", "Reshape", "Sigmoid", "Softmax"),
        *("Squeeze", "Tanh", "Unsqueeze"),
    ]
)
_LEAST_VARIANCE = 0.01
"""Of the median feature: a feature in which the original hardly varies is not held to that."""
_LEAST_SQUARE = 1e-4
"""Of the feature's mean square: where nothing varies, there is still something to divide by."""


def targets(model: onnx.ModelProto) -> tuple[str, ...]:
    """The values to compare: the outputs before their last activations, or what enters the ops that choose."""
    graph = OnnxGraph(model)
    dependent = _reached(graph, {value.name for value in graph.inputs})
    chosen = _reached(graph, {name for node in graph.nodes if _chooses(node) for name in node.output})
    found = [_before_the_end(graph, name) for name in graph.outputs if name not in chosen]
    for index, node in enumerate(graph.nodes):
        if not graph.scope[index] and (_chooses(node) or chosen.intersection(node.output)):
            found += [name for name in node.input if name and name not in chosen]
    return tuple(name for name in dict.fromkeys(found) if name in dependent and name in graph.producer)


def beside(model: onnx.ModelProto, value: str) -> set[str]:
    """All values that depend on the model's inputs by other ways than through this one, or through what this one is
    but for its last activations and its shape."""
    graph = OnnxGraph(model)
    return _reached(graph, {each.name for each in graph.inputs}, _before_the_end(graph, value))


def outputs_beside(model: onnx.ModelProto, value: str, weights: Iterable[str] | None = None) -> tuple[str, ...]:
    """The model's outputs among the values `beside` this one; of these, the ones that any of the weights reaches."""
    graph = OnnxGraph(model)
    found = beside(model, value)
    if weights is not None:
        found &= _reached(graph, set(weights))
    return tuple(name for name in graph.outputs if name in found)


@RECOVERIES.register(
    "imitation",
    title="Finetuning without labels",
    summary="The pruned network learns to give what the original gives, for any task and number of outputs; what a "
    "job does by itself where there are images and no labels.",
    paper="Ba and Caruana, Do Deep Nets Really Need to be Deep?, NeurIPS 2014, arXiv 1312.6184, eq. 1",
    cost="that of finetuning, and a forward pass of the original for each image",
    uses=("gradients",),
    data="images",
    exactness="adapted",
    asked_for_by="data.labels",
)
class Imitation:
    """What a training on images alone strives for, and how it is judged."""

    def __init__(
        self,
        student: TorchForm,
        teacher: TorchForm,
        images: torch.Tensor,
        batches: Iterable[torch.Tensor],
        device: torch.device,
        apart: str | None = None,
    ) -> None:
        """images: a few, (B, ...), on which both are tried; batches: those that tell how the original's values vary,
        whatever the batch in which they are compared; apart: a value that something else looks after, and with it all
        that is computed from it alone. Raises EngineError where there is nothing to compare."""
        names = [name for name in targets(teacher.model) if name in teacher.values and name in student.values]
        if apart is not None:
            others = beside(teacher.model, apart)
            names = [name for name in names if name in others]
        wanted, given = (_try(form, names, images) for form in (teacher, student))
        self.values = tuple(
            name
            for name, a, b in zip(names, wanted, given, strict=True)
            if a.is_floating_point() and a.shape == b.shape and a.numel()
        )
        if not self.values:
            raise EngineError(
                NOTHING_TO_IMITATE,
                "No output of the model can be compared with the original's while it is trained.",
                "Set finetuning.epochs to 0.",
            )
        self._teacher = teacher.on_batches(teacher.up_to(*self.values).eval()).to(device)
        self._variances = _variances(self._teacher, batches)

    def loss(self, outputs: tuple[torch.Tensor, ...], images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Squared differences over the original's variance, the mean over features and outputs: 0 is the original."""
        with torch.no_grad():
            wanted = self._teacher(images)
        compared = zip(outputs, wanted, self._variances, strict=True)
        return torch.stack([_unexplained(a.float(), b.float(), variance) for a, b, variance in compared]).mean()

    def judge(
        self, outputs: tuple[torch.Tensor, ...], images: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, None]:
        """The loss; there is no accuracy."""
        return self.loss(outputs, images, labels), None


def _chooses(node: onnx.NodeProto) -> bool:
    return node.op_type in _CHOOSING or bool(bodies_of(node))


def _reached(graph: OnnxGraph, start: set[str], barrier: str = "") -> set[str]:
    """The values that depend on any of `start`, with these; not through the barrier."""
    reached = set(start)
    for node in graph.nodes:
        if reached.intersection(_reads(node)):
            reached.update(name for name in node.output if name not in ("", barrier))
    return reached


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    yield from node.input
    for body in bodies_of(node):
        for inner in body.node:
            yield from _reads(inner)


def _before_the_end(graph: OnnxGraph, name: str) -> str:
    """The value that an output is computed from by activations and changes of shape alone."""
    while (index := graph.producer.get(name)) is not None and graph.nodes[index].op_type in _ENDS:
        name = graph.nodes[index].input[0]
    return name


def _try(form: TorchForm, names: list[str], images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    if not names:
        return ()
    what = f"The model does not run on a batch of images {tuple(images.shape)}"
    hint = "Export it with a dynamic batch axis, and check its input size."
    with torch.no_grad(), as_engine_error("torch_form_failed", what, hint):
        found: tuple[torch.Tensor, ...] = form.on_batches(form.up_to(*names).eval())(images)
    return found


def _variances(network: torch.nn.Module, batches: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Of every feature of the network's values over all these images, float32 (features,); each is above 0."""
    with torch.no_grad():
        moments = [[_moments(value.float()) for value in network(images)] for images in batches]
    return [_variance(of_value) for of_value in zip(*moments, strict=True)]


def _moments(values: torch.Tensor) -> torch.Tensor:
    """How many values each feature has, their sum and the sum of their squares: (3, features), float64."""
    rows = _by_feature(values)
    total, squares = (each.sum(1, dtype=torch.float64) for each in (rows, rows.square()))
    return torch.stack([torch.full_like(total, rows.shape[1]), total, squares])


def _variance(moments: Sequence[torch.Tensor]) -> torch.Tensor:
    if len({part.shape for part in moments}) > 1:  # as many as there are things in the images: they are no features
        moments = [part.sum(1, keepdim=True) for part in moments]
    count, total, squares = torch.stack(list(moments)).sum(0)
    variance = squares / count - (total / count).square()
    floor = _LEAST_VARIANCE * variance.median() + _LEAST_SQUARE * squares / count
    spread = variance.maximum(floor).float()
    return torch.where(spread > torch.finfo(spread.dtype).tiny, spread, 1.0)


def _by_feature(values: torch.Tensor) -> torch.Tensor:
    """(features, values of each): all scores (B, K) are one feature, and larger tensors have one for each index of
    their smallest axis."""
    if values.dim() <= 2:
        return values.reshape(1, -1)
    sizes = values.shape
    axis = min((a for a in range(1, values.dim()) if sizes[a] > 1), key=lambda a: sizes[a], default=1)
    return values.movedim(axis, 0).flatten(1)


def _unexplained(given: torch.Tensor, wanted: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """The share of the features' variance that the given values, (B, ...), miss of the wanted ones."""
    missed = _by_feature((given - wanted).square())
    if len(variance) != len(missed):
        variance = variance.mean()
    return (missed.mean(1) / variance).mean()
