"""Control flow that is decided for all inputs, written without it: a branch that is always taken, and rounds that are
counted.

What stands in a body enters and leaves it in the size that it has, and is not trained; written out it is as free as any
other part of the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx
from onnx import numpy_helper

from worker.engine.graph.onnx_graph import attribute, bodies_of, int_attribute
from worker.engine.graph.rewriting import Rewriting

_OPEN = -1
"""Stands for a size that depends on the input."""
_MOST_ROUNDS = 64
_MOST_NODES = 2048
"""What a loop may become, written out."""


def known_branch(to: Rewriting, index: int, node: onnx.NodeProto) -> bool:
    """An If that was exported with its condition decided, or that asks for a size which the file fixes, as a squeeze
    from TorchScript does where the exporter did not know the shape."""
    condition = _decided(to, node.input[0])
    if condition is None:
        return False
    wanted = "then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"
    branch = next(a.g for a in node.attribute if a.name == wanted)
    original = next(a.g for a in to.graph.nodes[index].attribute if a.name == wanted)
    if not any(body.graph is original for body in to.graph.bodies):  # its names are not its own
        return False
    for tensor in branch.initializer:
        to.add("Constant", to=tensor.name, value=tensor)
    to.extend(branch.node)
    for inner, outer in zip(branch.output, node.output, strict=True):
        if outer:
            to.add("Identity", inner.name, to=outer)
    to.opened = True
    return True


def _decided(to: Rewriting, name: str) -> np.ndarray | None:
    """What follows from stored numbers and fixed sizes alone."""
    stored, maker = to.constant(name), to.maker(name)
    if stored is not None or maker is None:
        return stored
    if maker.op_type == "Shape":
        sizes = to.sizes(maker.input[0])
        if sizes is None:
            return None
        taken = sizes[int_attribute(maker, "start", 0) : attribute(maker, "end")]
        return np.array([_OPEN if size is None else size for size in taken], np.int64)
    operands = [_decided(to, each) for each in maker.input]
    known = [each for each in operands if each is not None]
    if len(known) < len(operands):
        return None
    if maker.op_type in ("Cast", "Identity", "Squeeze", "Unsqueeze"):
        return known[0].reshape(-1)
    if maker.op_type == "Gather":
        return known[0].take(known[1], axis=int_attribute(maker, "axis", 0), mode="wrap")
    if maker.op_type == "Equal" and not any((each == _OPEN).any() for each in known):
        return np.asarray(np.equal(*known))
    return None


def known_rounds(to: Rewriting, index: int, node: onnx.NodeProto) -> bool:
    """A Loop that was exported with its number of rounds decided, `for i in range(3)` in TorchScript: the rounds one
    after the other. Weights are shared by all of them."""
    count = to.constant(node.input[0]) if node.input[0] else None
    body = next(a.g for a in node.attribute if a.name == "body")
    original = next(a.g for a in to.graph.nodes[index].attribute if a.name == "body")
    if count is None or not 0 < (rounds := int(count.reshape(-1)[0])) <= _MOST_ROUNDS:
        return False
    if not any(each.graph is original for each in to.graph.bodies) or any(bodies_of(inner) for inner in body.node):
        return False
    if rounds * len(body.node) > _MOST_NODES or not _goes_on(to, node, body):
        return False
    for tensor in body.initializer:
        to.add("Constant", to=tensor.name, value=tensor)
    constants = [inner for inner in body.node if inner.op_type == "Constant"]
    to.extend(constants)
    varying = [inner for inner in body.node if inner.op_type != "Constant"]
    carried = list(node.input[2:])
    lists: list[list[str]] = [[] for _ in node.output[len(carried) :]]
    true = to.add("Constant", value=numpy_helper.from_array(np.array(True)))
    for number in range(rounds):
        counter = to.add("Constant", value=numpy_helper.from_array(np.array(number, np.int64)))
        names = dict(zip((value.name for value in body.input), (counter, true, *carried), strict=True))
        to.extend(_one_round(to, varying, names, number))
        results = [names.get(value.name, value.name) for value in body.output[1:]]
        carried = results[: len(carried)]
        for collected, result in zip(lists, results[len(carried) :], strict=True):
            collected.append(to.unsqueezed(result, 0))
    for name, output in zip(carried, node.output, strict=False):
        if output:
            to.add("Identity", name, to=output)
    for collected, output in zip(lists, node.output[len(carried) :], strict=True):
        if output:
            to.add("Concat", *collected, to=output, axis=0)
    to.opened = True
    return True


def _goes_on(to: Rewriting, node: onnx.NodeProto, body: onnx.GraphProto) -> bool:
    """Whether the condition is true before the first round and stays so."""
    makers = {name: inner for inner in body.node for name in inner.output}
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in body.initializer}

    def holds(name: str) -> bool:
        value = stored.get(name, to.constant(name))
        made = makers.get(name)
        if value is None and made is not None and made.op_type in ("Cast", "Identity"):
            return holds(made.input[0])
        return name == body.input[1].name if value is None else bool(value.all())

    first = node.input[1]
    begins = to.constant(first) if first else np.array(True)
    return begins is not None and bool(begins.all()) and holds(body.output[0].name)


def _one_round(
    to: Rewriting, nodes: Iterable[onnx.NodeProto], names: dict[str, str], number: int
) -> Iterator[onnx.NodeProto]:
    """The nodes of a body for one round; `names` says what its tensors are called there, and learns of new ones. The
    first round has the body's own names."""
    for node in nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for position, name in enumerate(node.input):
            copy.input[position] = names.get(name, name)
        for position, name in enumerate(node.output):
            if name and number:
                names[name] = copy.output[position] = to.fresh(f"{name}/{number}")
        if number:
            copy.name = f"{node.name or node.op_type}/{number}"
        yield copy
