"""The filters of a source as rows, and values per filter gathered into values per unit."""

import numpy as np
import numpy.typing as npt

from worker.engine.graph.analysis import Analysis, Group
from worker.engine.graph.propagation import Source

Floats = npt.NDArray[np.float64]


def filters(analysis: Analysis, source: Source) -> Floats | None:
    """(channels, weights per channel) of the source's weight; None where the weight is computed by a chain that hides
    which constant it comes from."""
    located = _constant_axis(analysis, source)
    if located is None:
        return None
    name, axis = located
    weight = np.moveaxis(analysis.graph.array(name).astype(np.float64), axis, 0)
    return weight.reshape(weight.shape[0], -1)


def _constant_axis(analysis: Analysis, source: Source) -> tuple[str, int] | None:
    """The constant behind a weight (perhaps through Transpose, Cast, DequantizeLinear) and its axis of filters."""
    name = source.weight
    while name not in analysis.graph.constants:
        if name not in analysis.graph.producer:
            return None
        name = analysis.graph.nodes[analysis.graph.producer[name]].input[0]
    wanted = analysis.roots[source.labels]
    for slot in analysis.propagation.slots:
        if slot[0] == name:
            for axis, labels in enumerate(analysis.propagation.slot_dims(slot)):
                if labels is not None and np.array_equal(analysis.roots[labels], wanted):
                    return name, axis
    return None


def per_unit(analysis: Analysis, group: Group, source: Source, values: Floats) -> Floats:
    """Sum values per channel of a source into values per unit of a group."""
    roots = analysis.roots[source.labels]
    position = np.searchsorted(group.units, roots)  # units are sorted
    position = np.minimum(position, len(group) - 1)
    member = group.units[position] == roots
    return np.bincount(position[member], weights=values[member], minlength=len(group)).astype(np.float64)
