"""Inputs for a graph: concrete sizes for its dynamic axes, and random values."""

from collections.abc import Iterator

import numpy as np
import onnx

from worker.engine.graph.onnx_graph import Array, OnnxGraph, int_attribute, ints_attribute

_SPATIAL_SIZES = (64, 224, 256, 128, 320, 512, 640, 32, 28)
_SEQUENCE_SIZES = (16, 1, 64, 128, 400, 1600, 16_000, 32, 28)
"""Tokens, or samples of a sound, of which networks take many before they have a first output; tried in step with the
above."""
_BATCH_SIZES = (2, 1)

Sizes = dict[str, tuple[int, ...]]
"""A concrete shape for each graph input."""


def given_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that a run has to be given: stored tensors may be declared as inputs, too (IR version 3)."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in stored]


def declared_shape(value: onnx.ValueInfoProto) -> list[int | str | None] | None:
    """Dimensions as numbers, names, or None; None where no rank is declared."""
    if not value.type.tensor_type.HasField("shape"):
        return None
    return [
        d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else (d.dim_param or None)
        for d in value.type.tensor_type.shape.dim
    ]


def as_declared(value: onnx.ValueInfoProto, numbers: Array) -> Array:
    """Floating-point numbers in the floating-point type that an input declares; as they are where it takes others."""
    declared = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
    return numbers.astype(declared, copy=False) if declared.kind == "f" else numbers


def misfit_hint(element: str) -> str:
    """What to look at where a model does not run on images; `element` is what its input holds: "float", "uint8"."""
    if element in ("float", "float16", "double"):
        return "Check the model's input size and layout."
    return f"Images are floating-point numbers, and the model takes {element}: export it with a floating-point input."


def candidate_sizes(graph: OnnxGraph) -> Iterator[tuple[Sizes, int]]:
    """Concrete input shapes to try, likeliest first, each with its number of samples.

    Dynamic leading dimensions are batches, other dynamic dimensions of images are their height and width; dimensions
    of one name are alike. A batch of two keeps the batch apart from the many dimensions of size one.
    """
    single = single_samples(graph)
    channels = {i.name: _channels_read(graph, i.name) for i in graph.inputs}
    declared = {i.name: [1, *shape] if shape and i.name in single else shape for i, shape in _declared(graph)}
    dynamic_rest = any(not isinstance(d, int) for shape in declared.values() for d in (shape or [])[1:])
    dynamic_batch = any(shape and not isinstance(shape[0], int) for shape in declared.values())
    for size, length in list(zip(_SPATIAL_SIZES, _SEQUENCE_SIZES, strict=True))[: None if dynamic_rest else 1]:
        for batch in _BATCH_SIZES if dynamic_batch else (1,):
            named: dict[str, int] = {}
            sizes = {
                name: _concrete(shape, batch, size, length, channels[name], named) for name, shape in declared.items()
            }
            sizes.update({name: sizes[name][1:] for name in single})
            first = next(iter(declared.values()), None)
            fixed = first[0] if first and len(first) >= 3 and isinstance(first[0], int) else 1
            yield sizes, batch if dynamic_batch else max(int(fixed), 1)


def _declared(graph: OnnxGraph) -> list[tuple[onnx.ValueInfoProto, list[int | str | None] | None]]:
    return [(value, declared_shape(value)) for value in graph.inputs]


def single_samples(graph: OnnxGraph) -> set[str]:
    """Inputs that are one image without a batch axis, (C, H, W) or (H, W, C): whatever reads them, the network adds
    the axis in front before anything else than scaling and transposing."""
    return {i.name for i, shape in _declared(graph) if shape and len(shape) == 3 and _gets_a_batch_axis(graph, i.name)}


def _gets_a_batch_axis(graph: OnnxGraph, name: str) -> bool:
    readers = [graph.nodes[index] for index, _ in graph.consumers.get(name, ())]
    return bool(readers) and all(
        _adds_an_axis_in_front(graph, node)
        if node.op_type == "Unsqueeze"
        else node.op_type in _PREPARING and _gets_a_batch_axis(graph, node.output[0])
        for node in readers
    )


_PREPARING = frozenset(["Add", "Cast", "Clip", "Div", "Identity", "Mul", "Sub", "Transpose"])


def _adds_an_axis_in_front(graph: OnnxGraph, node: onnx.NodeProto) -> bool:
    axes = ints_attribute(node, "axes") or []
    if len(node.input) > 1 and node.input[1] in graph.constants:
        axes = graph.array(node.input[1]).reshape(-1).tolist()
    return any(axis % (3 + len(axes)) == 0 for axis in axes)


def _channels_read(graph: OnnxGraph, name: str) -> int | None:
    """As many as a convolution takes of an input, directly or scaled; None where there is none."""
    scaled = [name]
    for given in scaled:
        for index, position in graph.consumers.get(given, ()):
            node = graph.nodes[index]
            weight = graph.constants.get(node.input[1]) if len(node.input) > 1 else None
            if node.op_type == "Conv" and position == 0 and weight is not None and len(weight.dims) > 2:
                return int(weight.dims[1]) * int_attribute(node, "group", 1)
            if node.op_type in _PREPARING - {"Transpose"} and node.output[0] not in scaled:
                scaled.append(node.output[0])
    return None


def _concrete(
    shape: list[int | str | None] | None,
    batch: int,
    size: int,
    length: int,
    channels: int | None,
    named: dict[str, int],
) -> tuple[int, ...]:
    """`channels` are those that a convolution reads; `named` are the dimensions that other inputs have given a size,
    and this one's after it."""
    if shape is None:
        return (batch, channels or 3, size, size)
    rest = size if len(shape) >= 3 else length
    channels_last = len(shape) == 4 and isinstance(shape[3], int) and shape[3] in (1, 3, 4)

    def guess(axis: int) -> int:
        if axis == 0:
            return batch
        if axis == 1 and len(shape) >= 3 and channels is not None:
            return channels
        # An image of which neither the file nor a convolution tells the channels is most likely coloured.
        return 3 if axis == 1 and len(shape) == 4 and not channels_last else rest

    def known(axis: int, dimension: int | str | None) -> int:
        if isinstance(dimension, int):
            return dimension
        return guess(axis) if dimension is None else named.setdefault(dimension, guess(axis))

    return tuple(known(axis, dimension) for axis, dimension in enumerate(shape))


def random_inputs(graph: OnnxGraph, sizes: Sizes, seed: int) -> dict[str, Array]:
    """Float inputs uniform in 0..1 like images, integers 0 or 1 (valid as index, token or flag)."""
    rng = np.random.default_rng(seed)
    inputs: dict[str, Array] = {}
    for value in graph.inputs:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
        if dtype.kind in "iub":
            inputs[value.name] = rng.integers(0, 2, sizes[value.name]).astype(dtype)
        else:
            inputs[value.name] = rng.random(sizes[value.name], dtype=np.float32).astype(dtype)
    return inputs


def with_batch(graph: OnnxGraph, sizes: Sizes, batch: int) -> Sizes:
    """The same sizes with another number of samples, where the batch is dynamic: the first dimension, and others of its
    name, such as that of the states of recurrent layers."""
    single = single_samples(graph)
    declared = {i.name: shape or [] for i, shape in _declared(graph) if i.name not in single}
    named = {shape[0] for shape in declared.values() if shape and isinstance(shape[0], str)}

    def is_batch(name: str, axis: int) -> bool:
        dimension = declared[name][axis] if name in declared and axis < len(declared[name]) else 0
        return dimension in named or (axis == 0 and dimension is None)

    return {
        name: tuple(batch if is_batch(name, axis) else size for axis, size in enumerate(shape))
        for name, shape in sizes.items()
    }
