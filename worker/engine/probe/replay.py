"""A module run again after some of its weights changed: only what depends on them is computed anew."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import fx

from worker.engine.recovery.walk import call, member


class Replay:
    """Holds every value of one run of a module on `inputs`, in the order of its placeholders.

    `masks` are paths of members that are all ones in that run, each a factor of one other value: what multiplies by
    one that has not changed hands its value on. `filling` names, by mask, what stands in place of what it takes out;
    elsewhere that is zero.
    """

    def __init__(
        self,
        module: fx.GraphModule,
        inputs: Sequence[torch.Tensor],
        masks: Collection[str] = frozenset(),
        filling: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        self._module = module.eval()
        self._filling = filling or {}
        self._nodes = [node for node in module.graph.nodes if node.op not in ("get_attr", "output")]
        self._output = next(node for node in module.graph.nodes if node.op == "output")
        self._readers = {str(node.target): node for node in module.graph.nodes if node.op == "get_attr"}
        self._masked = {
            node: (str(used.target), next(other for other in node.all_input_nodes if other is not used))
            for node in self._nodes
            for used in node.all_input_nodes
            if used.op == "get_attr" and str(used.target) in masks
        }
        self._last_use = {used: place for place, node in enumerate(self._nodes) for used in node.all_input_nodes}
        self._held: dict[fx.Node, Any] = {}
        placeholders = iter(inputs)
        for node in self._nodes:
            self._held[node] = next(placeholders) if node.op == "placeholder" else self._run(node, self._held, ())
        self.outputs = self._outputs(self._held)
        held = (value for node, value in self._held.items() if node not in self._masked)
        self.held_bytes = sum(value.nbytes for value in held if isinstance(value, torch.Tensor))

    def again(self, changed: Collection[str]) -> tuple[torch.Tensor, ...]:
        """The outputs with the members at these paths as they are now; all others are as in the first run."""
        dirty: set[fx.Node] = {self._readers[path] for path in changed if path in self._readers}
        fresh: dict[fx.Node, Any] = {}
        wanted = set(self._output.all_input_nodes)
        for place, node in enumerate(self._nodes):
            if dirty.isdisjoint(node.all_input_nodes):
                continue
            dirty.add(node)
            fresh[node] = self._run(node, fresh, changed)
            for used in node.all_input_nodes:
                if self._last_use[used] == place and used not in wanted:
                    fresh.pop(used, None)
        return self._outputs(fresh)

    @torch.no_grad()
    def means(self) -> dict[str, torch.Tensor]:
        """What every mask multiplies, as its mean over all but the mask's own axis. Zero points that a mask of bytes
        lets through in place of values have none."""
        found = {}
        for node, (path, masked) in self._masked.items():
            mask, value = self._module.get_parameter(path), self._held[masked]
            if len(node.all_input_nodes) == 2 and value.is_floating_point():
                others = [axis for axis in range(value.dim()) if mask.shape[axis] == 1]
                found[path] = value.mean(others, keepdim=True)
        return found

    @torch.no_grad()
    def _run(self, node: fx.Node, values: dict[fx.Node, Any], changed: Collection[str]) -> Any:  # noqa: ANN401
        """What the node gives: a tensor, or a Python value."""
        argument = partial(self._argument, values)
        if node in self._masked:
            mask, masked = self._masked[node]
            if mask not in changed:
                return argument(masked)
            if mask in self._filling:
                kept = self._module.get_parameter(mask)
                return argument(masked) * kept + self._filling[mask] * (1 - kept)
        return call(self._module, node, fx.map_arg(node.args, argument), fx.map_arg(node.kwargs, argument))

    def _argument(self, values: dict[fx.Node, Any], node: fx.Node) -> Any:  # noqa: ANN401
        if node.op == "get_attr":
            return member(self._module, node)
        return values[node] if node in values else self._held[node]

    def _outputs(self, values: dict[fx.Node, Any]) -> tuple[torch.Tensor, ...]:
        found = fx.map_arg(self._output.args[0], partial(self._argument, values))
        return tuple(found) if isinstance(found, tuple | list) else (found,)
