"""Least-squares reconstruction: the weights that remain take over, layer by layer, what the removed channels did.

Every layer is refitted in closed form on calibration images so that, from the inputs that the *pruned* network gives
it, it comes as close as it can to what the *original* computed in its place (He et al., Channel Pruning for
Accelerating Very Deep Neural Networks, ICCV 2017, eq. 1 for fixed channels; the errors of earlier layers are made up
for as in their section 3.2). No labels, no gradients. Behind a residual Add the layer that comes last is fitted to the
sum, so that it also makes up for what its shortcut lost. A BatchNormalization behind a layer is fitted together with
it: its scale, bias and statistics come out consistent with the calibration images. Other norms are re-estimated where
what arrives has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import fx

from worker.engine.graph import Analysis
from worker.engine.methods import OnlyWith
from worker.engine.recovery.bn_reestimation import Statistics, norm_statistics, set_statistics
from worker.engine.recovery.least_squares import NormalEquations, fit
from worker.engine.recovery.linear_sites import Norm, Site, find_sites, overwrite
from worker.engine.recovery.registry import RECOVERIES, CalibrationOptions
from worker.engine.recovery.walk import Lazily, Walk, member
from worker.engine.surgery import Plan
from worker.engine.torch_form import TorchForm

ROWS_PER_INPUT = 40
MIN_ROWS = 50_000
HELD_OUT = 5
"""Every fifth batch is held out of a first fit, to choose the ridge and to tell how good the fit is."""
MAX_INPUTS = 6000
"""Layers that sum over more keep their weights: the normal equations would take gigabytes."""
EXACT = 1e-5
"""Relative error below which a layer is left as it is."""


@dataclass(frozen=True)
class LayerFit:
    """One refitted layer. Errors are relative to the variance of the original's output, on held-out images."""

    name: str
    error_before: float
    error_after: float
    ridge: float


@RECOVERIES.register(
    "reconstruction",
    title="Least-squares reconstruction",
    summary="The weights that remain are refitted in closed form, layer by layer, to what the original computes.",
    paper="He et al., Channel Pruning for Accelerating Very Deep Neural Networks, ICCV 2017, arXiv 1707.06168, eq. 1",
    cost="some forward passes of both networks over the calibration images, and a linear system per layer",
    uses=("weights", "activations"),
    data="images",
    exactness="adapted",
    options=CalibrationOptions,
    only_with=(OnlyWith("granularity", (), "it refits whole kernels, and would fill those that were taken out."),),
    asked_for_by="recovery.reconstruction",
)
def reconstruct(
    analysis: Analysis,
    plan: Plan,
    original: TorchForm,
    pruned: TorchForm,
    batches: Sequence[torch.Tensor],
    on_progress: Callable[[float], None] = lambda fraction: None,
    walk_of: type[Walk] = Walk,
) -> tuple[LayerFit, ...]:
    """Refit the layers of `pruned`, the torch form of the model cut by `plan`, to `original`, the form of the whole.

    batches: at least two batches of calibration images, in the layout of the model's one input. Layers that still
    compute what they did are left as they are. walk_of: Rerun where the activations of all batches are too much to be
    held; the weights are the same.
    """
    return _Reconstruction(analysis, plan, original, pruned, batches, walk_of).run(on_progress)


class _Reconstruction:
    """Two walks in lockstep: the pruned form, whose layers are refitted on the way, and the original."""

    def __init__(
        self,
        analysis: Analysis,
        plan: Plan,
        original: TorchForm,
        pruned: TorchForm,
        batches: Sequence[torch.Tensor],
        walk_of: type[Walk],
    ) -> None:
        self.analysis, self.alive = analysis, analysis.alive(plan.kept)
        self.original, self.pruned = original, pruned
        self.names = {node: name for name, node in pruned.values.items() if name in original.values}
        self.sites = {
            node: site
            for node, site in find_sites(pruned).items()
            if site.end in self.names and site.matrix(pruned.module).shape[1] <= MAX_INPUTS
        }
        self.norms = norm_statistics(pruned)
        self.fitted: dict[fx.Node, tuple[Norm, torch.Tensor, torch.Tensor]] = {}
        """Norms behind refitted layers: the factor of the layer's weights, and the constant that the fit found."""
        self.behind_sites = {site.norm.node for site in self.sites.values() if site.norm is not None}
        self.changed: set[fx.Node] = set()
        """Nodes whose values are no longer the original's."""
        self.ours = walk_of(pruned.module, batches)
        ends = [node for site in self.sites.values() for node in self._ends(site)]
        self.theirs = walk_of(original.module, batches, [original.values[self.names[node]] for node in ends])

    def run(self, on_progress: Callable[[float], None]) -> tuple[LayerFit, ...]:
        fits: list[LayerFit] = []
        order = self.ours.upcoming()
        for place, node in enumerate(order):
            if node in self.sites:
                fits.extend(self._refit(self.sites[node]))
            if not self.changed.isdisjoint(node.all_input_nodes):
                self.changed.add(node)
            if node in self.fitted or (node in self.changed and node in self.norms and node not in self.behind_sites):
                self._set_norm(node)
            self.ours.reach(node)
            on_progress((place + 1) / len(order))
        return tuple(fits)

    def _ends(self, site: Site) -> list[fx.Node]:
        """Where the original's values may be asked for."""
        return [node for node in (site.end, site.total) if node is not None and node in self.names]

    def _refit(self, site: Site) -> Iterator[LayerFit]:
        targets = self._targets(site)
        prior = self._prior(site)
        train, held_out = self._equations(site, prior, targets)
        for node in self._ends(site):
            self.theirs.release(self.original.values[self.names[node]])
        found = fit(train, held_out, constant=site.norm is not None or site.bias is not None)
        if found.error_before <= EXACT:
            return
        self.changed.add(site.node)
        if not found.error_after < found.error_before:  # nor where one of them is no number
            return
        self._store(site, found.solution)
        yield LayerFit(str(site.node.meta["onnx_node"]), found.error_before, found.error_after, found.ridge)

    def _targets(self, site: Site) -> Sequence[torch.Tensor]:
        """What the layer and its norm should give, one tensor per batch."""
        if (
            site.total in self.names
            and site.branch is not None
            and self.ours.has(site.branch)
            # A layer whose output the Add broadcasts cannot make up for each place of the sum.
            and self._shape(site.total) == self._shape(site.end)
        ):
            wholes, branches = self._originals(site.total), self.ours.values(site.branch)
            return Lazily(len(wholes), lambda index: wholes[index] - branches[index])
        return self._originals(site.end)

    def _shape(self, node: fx.Node) -> torch.Size:
        """Of the original's values for the first batch."""
        shape: torch.Size = self._reached(self.original.values[self.names[node]])[0].shape
        return shape

    def _originals(self, node: fx.Node) -> Sequence[torch.Tensor]:
        """The original's values for the channels that are left."""
        name = self.names[node]
        values = self._reached(self.original.values[name])
        kept: dict[int, torch.Tensor] = {}
        for axis, labels in enumerate(self.analysis.propagation.tensors.get(name, [])):
            if labels is not None and not self.alive[labels].all():
                one = self.analysis.labels_of_one_sample(name, axis)
                kept[axis] = torch.from_numpy(self.alive[labels if one is None else one])

        def selected(index: int) -> torch.Tensor:
            value: torch.Tensor = values[index]
            for axis, alive in kept.items():  # the same of every sample where the axis holds samples x channels
                places = alive.repeat(value.shape[axis] // len(alive)).nonzero()[:, 0]
                value = value.index_select(axis, places)
            return value

        return Lazily(len(values), selected)

    def _reached(self, node: fx.Node) -> Sequence[torch.Tensor]:
        if not self.theirs.has(node):
            self.theirs.reach(node)
        return self.theirs.values(node)

    def _equations(
        self, site: Site, prior: torch.Tensor, targets: Sequence[torch.Tensor]
    ) -> tuple[NormalEquations, NormalEquations]:
        limit = max(MIN_ROWS, ROWS_PER_INPUT * prior.shape[1]) // len(targets)
        train, held_out = NormalEquations(prior), NormalEquations(prior)
        for index, (x, target) in enumerate(zip(self.ours.values(site.x), targets, strict=True)):
            last = index + 1 == len(targets)
            part = held_out if index % HELD_OUT == HELD_OUT - 1 or (last and not held_out.rows) else train
            for rows in site.rows(x, target, limit):
                part.add(*rows)
        return train, held_out

    def _prior(self, site: Site) -> torch.Tensor:
        """What layer and norm compute now, as (groups, inputs + 1, outputs of a group)."""
        module = self.pruned.module
        matrix = site.matrix(module)
        constant = torch.zeros(matrix.shape[0], 1, matrix.shape[2], dtype=torch.float64)
        if site.bias is not None:
            constant += _like(member(module, site.bias), constant)
        if site.norm is not None:
            mean, variance, scale, bias = (
                _like(member(module, node), constant)
                for node in (site.norm.mean, site.norm.variance, site.norm.scale, site.norm.bias)
            )
            factor = scale / (variance + site.norm.epsilon).sqrt()
            matrix, constant = matrix * factor, (constant - mean) * factor + bias
        return torch.cat([matrix, constant], 1)

    def _store(self, site: Site, solution: torch.Tensor) -> None:
        module = self.pruned.module
        matrix, constant = solution[:, :-1], solution[:, -1].reshape(-1)
        if site.norm is None:
            site.store(module, matrix)
            if site.bias is not None:
                overwrite(member(module, site.bias), constant)
            return
        # Behind a norm any scale of the weights does: that of the weights before is what training was tuned for.
        before = site.matrix(module).norm(dim=1, keepdim=True)
        after = matrix.norm(dim=1, keepdim=True)
        factor = torch.where((before > 0) & (after > 0), before / after.clamp_min(1e-12), torch.ones_like(after))
        site.store(module, matrix * factor)
        self.fitted[site.norm.node] = (site.norm, factor.reshape(-1), constant)

    def _set_norm(self, node: fx.Node) -> None:
        """Statistics of what arrives; behind a refitted layer also the scale and bias that keep what the fit found."""
        values = self.ours.values(node.all_input_nodes[0])
        statistics = Statistics.of(values)
        set_statistics(self.pruned, self.norms[node], statistics)
        if node not in self.fitted:
            return
        norm, factor, constant = self.fitted[node]
        site = next(site for site in self.sites.values() if site.norm is norm)
        offset = torch.zeros_like(constant)
        if site.bias is not None:
            offset = member(self.pruned.module, site.bias).detach().double().reshape(-1)
        overwrite(member(self.pruned.module, norm.scale), (statistics.variance + norm.epsilon).sqrt() / factor)
        overwrite(member(self.pruned.module, norm.bias), constant + (statistics.mean - offset) / factor)


def _like(vector: torch.Tensor, constant: torch.Tensor) -> torch.Tensor:
    """A vector over all outputs as (groups, 1, outputs of a group), float64."""
    return vector.detach().double().reshape(constant.shape[0], 1, constant.shape[2])
