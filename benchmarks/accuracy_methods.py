"""What the accuracy benchmark compares: ways to choose channels, ours on the ONNX graph, Torch-Pruning's on the module.

Both sides get the same network, the same MACs and the same images; MACs are counted by Espalier on the exported files.
"""

import copy
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import onnx
import torch
import torch_pruning as tp
from torch.nn import functional

from benchmarks.cifar_onnx import SIZE, export
from worker.engine.allocation import allocate, macs_limit
from worker.engine.allocation.registry import ALLOCATIONS
from worker.engine.criteria import Calibration, score
from worker.engine.criteria.registry import CRITERIA
from worker.engine.data import Dataset
from worker.engine.graph import Analysis, analyze
from worker.engine.surgery import Plan, prune


@dataclass(frozen=True)
class Ours:
    """Espalier: criterion and allocation by name, with their options; `inner` leaves the residual streams whole."""

    criterion: str
    allocation: str
    normalisation: str = "mean"
    inner: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def choose(
        self, model: onnx.ModelProto, ratio: float, images: Calibration, dataset: Dataset, seed: int
    ) -> tuple[Analysis, Plan]:
        analysis = analyze(model, exclude=_streams(model) if self.inner else ())
        scores = score(analysis, self.criterion, {"normalisation": self.normalisation}, seed=seed, calibration=images)
        chosen = allocate(
            analysis,
            scores,
            [macs_limit(analysis, ratio)],
            method=self.allocation,
            options=self.options,
            round_to=1,
            min_ratio=0.05,
            seed=seed,
            dataset=lambda: dataset,
        )
        return analysis, chosen.plan


@dataclass(frozen=True)
class Peer:
    """Torch-Pruning: an importance, whether one threshold serves all groups, and whether the residual streams stay."""

    importance: Callable[[], tp.importance.Importance]
    everywhere: bool
    needs_gradients: bool = False
    inner: bool = False


OURS = {
    "refit, inner layers, uniform": Ours("refit", "uniform", inner=True),
    "refit, inner layers, global": Ours("refit", "global", "none", inner=True),
    "refit, global": Ours("refit", "global", "none"),
    "refit, sensitivity": Ours("refit", "sensitivity"),
    "l2, uniform": Ours("l2", "uniform"),
    "l2, inner layers, global": Ours("l2", "global", inner=True),
}
OTHERS = (
    {f"{each.name}, uniform": Ours(each.name, "uniform") for each in CRITERIA if each.name != "l2"}
    | {
        f"refit, {each.name}": Ours("refit", each.name)
        for each in ALLOCATIONS
        if each.name not in ("uniform", "global", "sensitivity")
    }
    | {f"{name}, global": Ours(name, "global", "none") for name in ("fisher", "taylor")}
)
"""Every other criterion, allocated alike, every other allocation of the same scores, and gradients compared over all
layers."""
HEURISTIC = {
    f"l1, heuristic {rule}": Ours("l1", "heuristic", options={"rule": rule})
    for rule in ("mean_std", "largest_gap", "otsu")
}
CONTROL = "l1, uniform"
ALL_OURS = OURS | OTHERS | HEURISTIC
PEERS = {
    "magnitude l2, uniform": Peer(lambda: tp.importance.MagnitudeImportance(p=2), everywhere=False),
    "magnitude l2, global": Peer(lambda: tp.importance.MagnitudeImportance(p=2), everywhere=True),
    "BN scale, global": Peer(tp.importance.BNScaleImportance, everywhere=True),
    "LAMP, global": Peer(lambda: tp.importance.LAMPImportance(p=2), everywhere=True),
    "FPGM, uniform": Peer(tp.importance.FPGMImportance, everywhere=False),
    "Taylor, uniform": Peer(tp.importance.TaylorImportance, everywhere=False, needs_gradients=True),
    "Taylor, global": Peer(tp.importance.TaylorImportance, everywhere=True, needs_gradients=True),
}
INNER_PEERS = {
    f"{name}, inner layers, {where}": replace(PEERS[f"{name}, {where}"], inner=True)
    for name in ("magnitude l2", "Taylor")
    for where in ("uniform", "global")
}
"""Those of them that did best, with the residual streams left whole, as two of ours leave them."""
ALL_PEERS = PEERS | INNER_PEERS


def cut_ours(
    ours: Ours, model: onnx.ModelProto, ratio: float, images: Calibration, dataset: Dataset, seed: int
) -> tuple[Analysis, Plan, onnx.ModelProto]:
    """(analysis, plan, the cut model) with at most `ratio` of the MACs."""
    analysis, plan = ours.choose(model, ratio, images, dataset, seed)
    return analysis, plan, prune(analysis, plan)


def _streams(model: onnx.ModelProto) -> tuple[str, ...]:
    """Layers whose channels meet those of others in an Add, or feed one: all but the first convolutions of blocks."""
    analysis = analyze(model)
    sources: dict[int, int] = {}
    for group in analysis.groups:
        sources[group.id] = len({source.node for source in group.sources})
    coupled = {g for g, count in sources.items() if count > 1}
    return tuple(layer.name for layer in analysis.layers if coupled.intersection(layer.groups))


def cut_peer(peer: Peer, network: torch.nn.Module, ratio: float, images: Calibration) -> onnx.ModelProto:
    """Torch-Pruning's network as ONNX, with the most MACs up to `ratio` that its one number, the share of channels to
    remove, can be tuned to."""
    whole, low, high, best = analyze(_exported(network)).macs, 0.0, 1.0, None
    for _ in range(9):
        share = (low + high) / 2
        candidate = _pruned(peer, network, share, images)
        if candidate is not None and tp.utils.count_ops_and_params(candidate, torch.zeros(1, 3, SIZE, SIZE))[0] > 0:
            model = _exported(candidate)
            if analyze(model).macs > ratio * whole:
                low = share
                continue
            best = model
        high = share
    if best is None:
        raise ValueError("no share of channels meets the budget")
    return best


def _pruned(peer: Peer, network: torch.nn.Module, share: float, images: Calibration) -> torch.nn.Module | None:
    """A pruned copy; None where Torch-Pruning leaves a network that does not run."""
    network = copy.deepcopy(network)
    if peer.needs_gradients:
        _accumulate_gradients(network, images)
    pruner = tp.pruner.BasePruner(
        network,
        torch.zeros(1, 3, SIZE, SIZE),
        importance=peer.importance(),
        pruning_ratio=share,
        global_pruning=peer.everywhere,
        max_pruning_ratio=0.95,
        ignored_layers=[network.linear, *(_stream_layers(network) if peer.inner else ())],
    )
    pruner.step()
    network.zero_grad(set_to_none=True)
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, SIZE, SIZE))
    except RuntimeError:
        return None
    return network


def _stream_layers(network: torch.nn.Module) -> list[torch.nn.Module]:
    """What writes to the residual streams of a CIFAR ResNet: its stem, shortcuts, and the last layers of its blocks."""
    return [
        layer
        for name, layer in network.named_modules()
        if isinstance(layer, torch.nn.Conv2d) and (name == "conv1" or not name.endswith(".conv1"))
    ]


def _accumulate_gradients(network: torch.nn.Module, images: Calibration) -> None:
    assert images.labels is not None
    network.eval().zero_grad()
    for start in range(0, len(images.images), 64):
        part = slice(start, start + 64)
        scores = network(torch.from_numpy(images.images[part]))
        loss = functional.cross_entropy(scores, torch.from_numpy(images.labels[part]), reduction="sum")
        loss.backward()  # type: ignore[no-untyped-call]


def _exported(network: torch.nn.Module) -> onnx.ModelProto:
    file = io.BytesIO()
    export(network, file)
    return onnx.load_from_string(file.getvalue())
