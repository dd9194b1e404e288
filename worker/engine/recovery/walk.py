"""A torch form run node by node over all calibration images, so that weights can be changed on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import fx


class Walk:
    """Executes the nodes of a graph in order, each on every batch, and holds what is still needed.

    Weights are read when a node runs: whoever changes them in front of a node changes what the rest of the walk sees.

    >>> walk = Walk(form.module, batches)                                                       # doctest: +SKIP
    >>> walk.reach(form.values["conv2.out"])  # everything up to this node has run              # doctest: +SKIP
    >>> walk.values(form.values["conv2.in"])  # one tensor per batch                            # doctest: +SKIP
    """

    def __init__(self, module: fx.GraphModule, batches: Sequence[torch.Tensor], wanted: Iterable[fx.Node] = ()) -> None:
        """`wanted` nodes are held until `release`d, once for each time that they are named."""
        self._module = module.eval()
        self._batches = batches
        self._order = [node for node in module.graph.nodes if node.op not in ("get_attr", "output")]
        self._place = {node: place for place, node in enumerate(self._order)}
        self._next = 0
        self._uses = Counter(node for user in self._order for node in user.all_input_nodes)
        self._uses.update(wanted)
        self._held: dict[fx.Node, list[Any]] = {}
        self.peak_bytes = 0
        """The most that was held at a time, counting each value by itself."""

    def reach(self, node: fx.Node) -> None:
        """Run everything up to this node, itself included."""
        while self._next <= self._place[node]:
            self._run(self._order[self._next])
            self._next += 1

    def finish(self) -> None:
        """Run what is left."""
        if self._order:
            self.reach(self._order[-1])

    def upcoming(self) -> list[fx.Node]:
        """The nodes that have not run yet, in order."""
        return self._order[self._next :]

    def has(self, node: fx.Node) -> bool:
        """Whether the node's values are at hand."""
        return node in self._held

    def values(self, node: fx.Node) -> Sequence[Any]:
        """The values of a node that has run and is still held, one per batch."""
        return self._held[node]

    def release(self, node: fx.Node) -> None:
        """Say that one use is over; with the last one the values go."""
        self._uses[node] -= 1
        if self._uses[node] <= 0:
            self._held.pop(node, None)

    @torch.no_grad()
    def _run(self, node: fx.Node) -> None:
        results = []
        for index, batch in enumerate(self._batches):
            if node.op == "placeholder":
                results.append(batch)
                continue
            argument = partial(self._argument, index)
            args, kwargs = fx.map_arg(node.args, argument), fx.map_arg(node.kwargs, argument)
            results.append(call(self._module, node, args, kwargs))
        self._held[node] = results
        self.peak_bytes = max(self.peak_bytes, sum(_bytes(values) for values in self._held.values()))
        for used in node.all_input_nodes:
            self.release(used)
        if self._uses[node] <= 0:
            self._held.pop(node, None)

    def _argument(self, index: int, node: fx.Node) -> Any:  # noqa: ANN401  (tensors and Python values)
        return member(self._module, node) if node.op == "get_attr" else self._held[node][index]


class Rerun(Walk):
    """A walk that holds nothing: what is asked for is computed anew from the images, a batch at a time.

    It takes the memory of one batch, and the time of a forward pass up to there for each question. Values are those of
    a walk that holds them where, as there, weights are only changed in front of nodes that have not been reached.
    """

    def reach(self, node: fx.Node) -> None:
        self._next = max(self._next, self._place[node] + 1)

    def has(self, node: fx.Node) -> bool:
        return self._place[node] < self._next

    def values(self, node: fx.Node) -> Sequence[Any]:
        return Lazily(len(self._batches), lambda index: self._anew(node, index))

    def release(self, node: fx.Node) -> None:
        """There is nothing to let go."""

    def _anew(self, node: fx.Node, index: int) -> Any:  # noqa: ANN401
        walk = Walk(self._module, [self._batches[index]], [node])
        walk.reach(node)
        return walk.values(node)[0]


class Lazily(Sequence[Any]):
    """`count` values, each computed by its number whenever it is asked for."""

    def __init__(self, count: int, compute: Callable[[int], Any]) -> None:
        self._count, self._compute = count, compute

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self._compute(index)


def call(module: fx.GraphModule, node: fx.Node, args: Any, kwargs: Any) -> Any:  # noqa: ANN401
    """What a node of the module's graph makes of these arguments."""
    if node.op == "call_module":
        return module.get_submodule(str(node.target))(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    function: Any = node.target
    return function(*args, **kwargs)


def member(module: fx.GraphModule, node: fx.Node) -> Any:  # noqa: ANN401  (a tensor, or the training flag)
    """What a get_attr node reads."""
    found: Any = module
    for part in str(node.target).split("."):
        found = getattr(found, part)
    return found


def _bytes(values: list[Any]) -> int:
    return sum(v.nbytes for v in values if isinstance(v, torch.Tensor))
