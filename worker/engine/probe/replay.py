"""A module run again after some of its weights changed: only what depends on them is computed anew."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

import torch
from torch import fx

from worker.engine.recovery.walk import call, member


class Replay:
    """Holds every value of one run of a module on `inputs`, in the order of its placeholders."""

    def __init__(self, module: fx.GraphModule, inputs: Sequence[torch.Tensor]) -> None:
        self._module = module.eval()
        self._nodes = [node for node in module.graph.nodes if node.op not in ("get_attr", "output")]
        self._output = next(node for node in module.graph.nodes if node.op == "output")
        self._readers = {str(node.target): node for node in module.graph.nodes if node.op == "get_attr"}
        self._last_use = {used: place for place, node in enumerate(self._nodes) for used in node.all_input_nodes}
        self._held: dict[fx.Node, Any] = {}
        placeholders = iter(inputs)
        for node in self._nodes:
            self._held[node] = next(placeholders) if node.op == "placeholder" else self._run(node, self._held)
        self.outputs = self._outputs(self._held)
        self.held_bytes = sum(value.nbytes for value in self._held.values() if isinstance(value, torch.Tensor))

    def again(self, changed: Collection[str]) -> tuple[torch.Tensor, ...]:
        """The outputs with the members at these paths as they are now; all others are as in the first run."""
        dirty: set[fx.Node] = {self._readers[path] for path in changed if path in self._readers}
        fresh: dict[fx.Node, Any] = {}
        wanted = set(self._output.all_input_nodes)
        for place, node in enumerate(self._nodes):
            if dirty.isdisjoint(node.all_input_nodes):
                continue
            dirty.add(node)
            fresh[node] = self._run(node, fresh)
            for used in node.all_input_nodes:
                if self._last_use[used] == place and used not in wanted:
                    fresh.pop(used, None)
        return self._outputs(fresh)

    @torch.no_grad()
    def _run(self, node: fx.Node, values: dict[fx.Node, Any]) -> Any:  # noqa: ANN401  (tensors and Python values)
        argument = partial(self._argument, values)
        return call(self._module, node, fx.map_arg(node.args, argument), fx.map_arg(node.kwargs, argument))

    def _argument(self, values: dict[fx.Node, Any], node: fx.Node) -> Any:  # noqa: ANN401
        if node.op == "get_attr":
            return member(self._module, node)
        return values[node] if node in values else self._held[node]

    def _outputs(self, values: dict[fx.Node, Any]) -> tuple[torch.Tensor, ...]:
        found = fx.map_arg(self._output.args[0], partial(self._argument, values))
        return tuple(found) if isinstance(found, tuple | list) else (found,)
