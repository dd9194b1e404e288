"""Networks as torch's exporters write them: traced (opsets 9 to 17) and from torch.export."""

import numpy as np
from onnx import TensorProto, helper

from tests.engine.graph.graph_builder import GraphBuilder
from tests.engine.graph.idioms import (
    INT64_MAX,
    chunk,
    cut_out,
    idiom,
    reduce_mean,
    reduce_sum,
    scalar,
    size_of,
    squeeze,
    unsqueeze,
)


@idiom(2, 3, 9, 11, 13, 17)
def flattened_by_a_shape_chain(g):
    """x.view(x.size(0), -1) and x.view(b, c * h * w) with b, c, h and w read off the tensor."""
    x = g.conv(g.input(("batch", 3, 8, 8)), 3, 8)
    x = g.node("MaxPool", g.node("Relu", x), kernel_shape=[2, 2], strides=[2, 2])
    features = g.node("Mul", *(size_of(g, x, axis) for axis in (1, 2)))
    flat = g.node("Reshape", x, g.node("Concat", size_of(g, x, 0), g.node("Mul", features, size_of(g, x, 3)), axis=0))
    flat = g.node("Relu", g.gemm(flat, 8 * 16, 10))
    flat = g.node("Reshape", flat, g.node("Concat", size_of(g, flat, 0), g.ints(-1), axis=0))
    return g.gemm(flat, 10, 4)


@idiom(3, 4, 9, 11, 13, 17)
def channel_shuffle_by_a_shape_chain(g):
    """x.view(b, groups, c // groups, h, w).transpose(1, 2).contiguous().view(b, -1, h, w)."""
    x = g.conv(g.input(("batch", 3, 6, 6)), 3, 12, kernel=1)
    a, b = chunk(g, x, 1, 6, 6)
    b = g.conv(g.conv(b, 6, 6, group=6, bias=False), 6, 6, kernel=1)
    x = g.node("Concat", a, b, axis=1)
    per_group = g.node("Div", size_of(g, x, 1), g.ints(2))
    n, h, w = (size_of(g, x, axis) for axis in (0, 2, 3))
    grid = g.node("Reshape", x, g.node("Concat", n, g.ints(2), per_group, h, w, axis=0))
    x = g.node("Reshape", g.transpose(grid, 0, 2, 1, 3, 4), g.node("Concat", n, g.ints(-1), h, w, axis=0))
    return g.conv(x, 12, 4)


@idiom(2, 3, 9, 11, 17)
def upsampled_to_the_size_of_another(g):
    """F.interpolate(x, y.shape[2:]) and a concat, as in U-Net and FPN."""
    x = g.node("Relu", g.conv(g.input(("batch", 3, 8, 8)), 3, 8))
    small = g.node("Relu", g.conv(x, 8, 6, strides=[2, 2]))
    if g.opset < 11:
        scales = g.constant(np.array([1, 1, 2, 2], dtype=np.float32))
        big = g.node("Upsample", small, scales, mode="nearest")
    else:
        target = g.node("Slice", g.node("Shape", x), g.ints(2), g.ints(4), g.ints(0))
        head = g.node("Slice", g.node("Shape", small), g.ints(0), g.ints(2), g.ints(0))
        empty = g.constant(np.zeros(0, dtype=np.float32))
        big = g.node("Resize", small, empty, empty, g.node("Concat", head, target, axis=0), mode="linear")
    return g.conv(g.node("Concat", big, x, axis=1), 14, 4)


@idiom(1, 2, 9, 11, 13, 17)
def pixel_shuffle_taken_apart(g):
    x = g.conv(g.input((1, 3, 6, 6)), 3, 12)
    x = g.transpose(g.reshape(x, 1, 3, 2, 2, 6, 6), 0, 1, 4, 2, 5, 3)
    return g.conv(g.reshape(x, 1, 3, 12, 12), 3, 4)


@idiom(2, 3, 11, 17)
def pixel_shuffle_and_back(g):
    """A super-resolution tail, and pixel unshuffle by strided slices."""
    x = g.node("DepthToSpace", g.conv(g.input((1, 3, 4, 4)), 3, 24), blocksize=2, mode="CRD")
    x = g.node("Relu", g.conv(x, 6, 5))
    quarters = [cut_out(g, cut_out(g, x, 2, i, INT64_MAX, 2), 3, j, INT64_MAX, 2) for i in (0, 1) for j in (0, 1)]
    return g.conv(g.node("Concat", *quarters, axis=1), 20, 4)


@idiom(2, 3, 11, 13, 17, 21)
def group_normalisation_taken_apart(g):
    x = g.conv(g.input((2, 3, 6, 6)), 3, 12)
    flat = g.node("Reshape", x, g.ints(0, 4, -1))
    ones, zeros = (g.constant(np.full(4, v, dtype=np.float32)) for v in (1, 0))
    normal = g.node("InstanceNormalization", flat, ones, zeros, epsilon=1e-5)
    x = g.node("Reshape", normal, g.node("Shape", x))
    gain, shift = (g.weight(12, low=low) for low in (0.5, -0.5))
    x = g.node("Add", g.node("Mul", x, unsqueeze(g, gain, 1, 2)), unsqueeze(g, shift, 1, 2))
    return g.conv(g.node("Relu", g.conv(g.node("Relu", x), 12, 6)), 6, 4)


@idiom(1, 2, 9, 13)
def batch_normalisation_of_vectors_by_unsqueezing(g):
    """BatchNorm1d on (N, C) traced at opset 9 as Unsqueeze, BatchNormalization, Squeeze."""
    x = g.gemm(g.input(("batch", 6)), 6, 8)
    x = squeeze(g, g.batch_norm(unsqueeze(g, x, 2), 8), 2)
    return g.gemm(g.node("Relu", x), 8, 3)


@idiom(2, 3, 11, 16, 17, 23)
def slices_written_in_place(g):
    """y = x.clone(); y[:, :4] = f(y[:, :4]) traced to ScatterND over computed indices."""
    x = g.conv(g.input((2, 3, 6, 6)), 3, 10)
    front = cut_out(g, x, 1, 0, 4)
    new = g.node("Add", front, g.conv(front, 4, 4))
    index = g.constant(np.array([[[n, c] for c in range(4)] for n in range(2)], dtype=np.int64))
    return g.conv(g.node("Relu", g.node("ScatterND", x, index, new)), 10, 4)


@idiom(2, 3, 11, 17)
def partial_convolution(g):
    """FasterNet: the first quarter is convolved, the rest passes, and a concat."""
    x = g.conv(g.input((2, 3, 6, 6)), 3, 12)
    a, b = chunk(g, x, 1, 4, 8)
    return g.conv(g.node("Concat", g.conv(a, 4, 4, bias=False), b, axis=1), 12, 4)


@idiom(2, 3, 11, 17)
def option_a_shortcut(g):
    """F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, c // 4, c // 4)) with its amounts computed as torch traces them."""
    x = g.node("Relu", g.conv(g.input(("batch", 3, 8, 8)), 3, 8))
    thin = cut_out(g, cut_out(g, x, 2, 0, INT64_MAX, 2), 3, 0, INT64_MAX, 2)
    rank = g.node("ConstantOfShape", g.ints(2), value=helper.make_tensor("zero", TensorProto.INT64, [1], [0]))
    amounts = g.node("Concat", g.ints(0, 0, 0, 0, 4, 4), rank, axis=0)  # last axis first: (left, right), ...
    rows = g.node("Reshape", amounts, g.ints(-1, 2))
    rows = g.node("Slice", rows, g.ints(-1), g.ints(-INT64_MAX), g.ints(0), g.ints(-1))
    pads = g.node("Cast", g.node("Reshape", g.node("Transpose", rows, perm=[1, 0]), g.ints(-1)), to=TensorProto.INT64)
    wide = g.node("Pad", thin, pads, g.constant(0.0))
    main = g.batch_norm(g.conv(x, 8, 16, strides=[2, 2]), 16)
    return g.conv(g.node("Relu", g.node("Add", main, wide)), 16, 4)


@idiom(6, 8, 11, 14, 17, 21)
def vision_transformer_block(g):
    """Patches, class token, positions, fused qkv picked apart by Gather, an MLP, the class token out."""
    x = g.node("Conv", g.input(("batch", 3, 8, 8)), g.weight(12, 3, 4, 4), g.weight(12, low=-0.5), strides=[4, 4])
    x = g.transpose(g.node("Reshape", x, g.node("Concat", size_of(g, x, 0), g.ints(12, -1), axis=0)), 0, 2, 1)
    token = g.node("Expand", g.weight(1, 1, 12), g.node("Concat", size_of(g, x, 0), g.ints(1, 12), axis=0))
    x = g.node("Add", g.node("Concat", token, x, axis=1), g.weight(1, 5, 12))
    n, t = size_of(g, x, 0), size_of(g, x, 1)
    fused = g.node("Reshape", g.linear(x, 12, 36), g.node("Concat", n, t, g.ints(3, 3, 4), axis=0))
    five = g.transpose(fused, 2, 0, 3, 1, 4)
    q, k, v = (g.node("Gather", five, scalar(g, i), axis=0) for i in range(3))
    scores = g.node("MatMul", g.node("Mul", q, g.constant(0.5)), g.transpose(k, 0, 1, 3, 2))
    mixed = g.transpose(g.node("MatMul", g.node("Softmax", scores, axis=-1), v), 0, 2, 1, 3)
    x = g.node("Add", x, g.linear(g.node("Reshape", mixed, g.node("Concat", n, t, g.ints(12), axis=0)), 12, 12))
    x = g.node("Add", x, g.linear(g.node("Relu", g.linear(x, 12, 16)), 16, 12))
    return g.gemm(g.node("Gather", x, scalar(g, 0), axis=1), 12, 5)


@idiom(4, 6, 11, 17)
def windows_of_attention(g):
    """Swin: tokens cut into windows, a relative bias, a mask per window, windows joined again, patches merged."""
    x = g.input((1, 4, 4, 6))
    x = g.linear(x, 6, 8)
    w = g.reshape(g.transpose(g.reshape(x, 1, 2, 2, 2, 2, 8), 0, 1, 3, 2, 4, 5), 4, 4, 8)
    five = g.transpose(g.reshape(g.linear(w, 8, 24), 4, 4, 3, 2, 4), 2, 0, 3, 1, 4)
    q, k, v = (g.node("Gather", five, scalar(g, i), axis=0) for i in range(3))
    scores = g.node("MatMul", g.node("Mul", q, g.constant(0.5)), g.transpose(k, 0, 1, 3, 2))
    scores = g.node("Add", scores, g.weight(1, 2, 4, 4))
    masked = g.node("Add", g.reshape(scores, 1, 4, 2, 4, 4), g.weight(1, 4, 1, 4, 4))
    scores = g.node("Softmax", g.reshape(masked, 4, 2, 4, 4), axis=-1)
    w = g.linear(g.reshape(g.transpose(g.node("MatMul", scores, v), 0, 2, 1, 3), 4, 4, 8), 8, 8)
    back = g.reshape(g.transpose(g.reshape(w, 1, 2, 2, 2, 2, 8), 0, 1, 3, 2, 4, 5), 1, 4, 4, 8)
    x = g.node("Add", x, back)
    quarters = [cut_out(g, cut_out(g, x, 1, i, INT64_MAX, 2), 2, j, INT64_MAX, 2) for i in (0, 1) for j in (0, 1)]
    return g.linear(g.node("Concat", *quarters, axis=-1), 32, 5)


@idiom(3, 4, 11, 17)
def split_attention_over_radix(g):
    """ResNeSt: a softmax over the radix, by reshape and transpose, with grouped convolutions."""
    x = g.node("Relu", g.conv(g.input((1, 3, 6, 6)), 3, 16, group=1))
    five = g.reshape(x, 1, 2, 8, 6, 6)
    pooled = reduce_mean(g, reduce_sum(g, five, 1, keepdims=0), 2, 3)
    votes = g.conv(g.node("Relu", g.conv(pooled, 8, 4, kernel=1)), 4, 16, kernel=1)
    votes = g.transpose(g.reshape(votes, 1, 1, 2, 8), 0, 2, 1, 3)
    votes = g.reshape(g.node("Softmax", votes, axis=1) if g.opset >= 13 else softmax_of(g, votes, 1), 1, 16)
    weighed = g.node("Mul", five, g.reshape(votes, 1, 2, 8, 1, 1))
    return g.conv(reduce_sum(g, weighed, 1, keepdims=0), 8, 4)


@idiom(7, 9, 11, 18)
def attention_to_channels_and_positions(g):
    """CBAM in a residual block: a gate per channel, then one per position from their mean and maximum."""
    x = g.node("Relu", g.conv(g.input((2, 3, 6, 6)), 3, 8))
    y = g.conv(g.node("Relu", g.conv(x, 8, 10)), 10, 8)
    squeeze, excite = g.weight(4, 8, 1, 1), g.weight(8, 4, 1, 1)
    votes = [
        g.node("Conv", g.node("Relu", g.node("Conv", g.node(op, y), squeeze)), excite)
        for op in ("GlobalAveragePool", "GlobalMaxPool")
    ]
    y = g.node("Mul", y, g.node("Sigmoid", g.node("Add", *votes)))
    peak = g.node("ReduceMax", y, g.ints(1)) if g.opset >= 18 else g.node("ReduceMax", y, axes=[1])
    seen = g.node("Concat", reduce_mean(g, y, 1), peak, axis=1)
    y = g.node("Mul", y, g.node("Sigmoid", g.conv(seen, 2, 1)))
    return g.conv(g.node("Relu", g.node("Add", x, y)), 8, 4)


def softmax_of(g: GraphBuilder, x: str, axis: int) -> str:
    """A softmax along an inner axis before opset 13, as torch writes it: that axis moved to the end."""
    order = list(range(4))
    order[axis], order[-1] = order[-1], order[axis]
    return g.transpose(g.node("Softmax", g.transpose(x, *order), axis=3), *order)


@idiom(3, 4, 11, 17)
def selective_kernels(g):
    """SKNet: branches stacked, summed, squeezed, a softmax over the branches."""
    x = g.input((1, 3, 6, 6))
    branches = [g.node("Relu", g.conv(x, 3, 8, kernel=k)) for k in (1, 3)]
    stacked = g.node("Concat", *(unsqueeze(g, b, 1) for b in branches), axis=1)
    squeezed = g.node("GlobalAveragePool", reduce_sum(g, stacked, 1, keepdims=0))
    votes = g.conv(squeezed, 8, 16, kernel=1)
    votes = g.reshape(votes, 1, 2, 8, 1, 1)
    exp = g.node("Exp", votes)
    weights = g.node("Div", exp, reduce_sum(g, exp, 1))
    return g.conv(reduce_sum(g, g.node("Mul", stacked, weights), 1, keepdims=0), 8, 4)


@idiom(2, 4, 11, 13, 17)
def lstm_over_columns(g):
    """CRNN: an image's columns as a sequence into a bidirectional LSTM, whose input width follows."""
    x = g.node("Relu", g.conv(g.input((1, 3, 4, 8)), 3, 8))
    x = g.node("MaxPool", g.conv(x, 8, 10), kernel_shape=[4, 1], strides=[4, 1])
    columns = g.transpose(squeeze(g, x, 2), 2, 0, 1)
    w, r = g.constant(0.3 * g.normal(2, 20, 10)), g.constant(0.3 * g.normal(2, 20, 5))
    y = g.node("LSTM", columns, w, r, g.weight(2, 40, low=-0.5), outputs=1, hidden_size=5, direction="bidirectional")
    y = g.node("Reshape", g.transpose(y, 0, 2, 1, 3), g.ints(0, 0, -1))
    return g.linear(y, 10, 7)


@idiom(2, 3, 11, 17)
def convolutions_of_a_line(g):
    """Audio: 1-D convolutions with a depthwise one, gated linear units, and batch norms."""
    x = g.conv(g.input(("batch", 4, 16)), 4, 12, rank=1)
    x = g.batch_norm(g.conv(x, 12, 12, rank=1, group=12), 12)
    a, b = chunk(g, x, 1, 6, 6)
    return g.conv(g.node("Mul", a, g.node("Sigmoid", b)), 6, 4, rank=1)


@idiom(3, 4, 11, 17)
def convolutions_of_a_volume(g):
    """Video: (2 + 1)-D convolutions, pooling, a transposed convolution with its own stride, a skip."""
    x = g.node("Relu", g.node("Conv", g.input((1, 2, 4, 6, 6)), g.weight(8, 2, 1, 3, 3), pads=[0, 1, 1, 0, 1, 1]))
    x = g.node("Relu", g.node("Conv", x, g.weight(6, 8, 3, 1, 1), pads=[1, 0, 0, 1, 0, 0]))
    small = g.node("MaxPool", x, kernel_shape=[1, 2, 2], strides=[1, 2, 2])
    big = g.node("ConvTranspose", small, g.weight(6, 5, 1, 2, 2), g.weight(5, low=-0.5), strides=[1, 2, 2])
    return g.node("Conv", g.node("Concat", x, big, axis=1), g.weight(4, 11, 1, 1, 1))


@idiom(2, 4, 11, 17)
def one_head_for_every_level(g):
    """RetinaNet: the same two convolutions on each of three levels of a pyramid, boxes flattened and joined."""
    x = g.input((1, 3, 8, 8))
    w, b, w2 = g.weight(6, 3, 3, 3), g.weight(6, low=-0.5), g.weight(8, 6, 3, 3)
    levels = []
    for _ in range(2):
        y = g.node("Conv", g.node("Relu", g.node("Conv", x, w, b, pads=[1] * 4)), w2, pads=[1] * 4)
        y = g.transpose(g.node("Reshape", y, g.ints(1, 2, 4, -1)), 0, 3, 1, 2)
        levels.append(g.reshape(y, 1, -1, 4))
        x = g.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    return g.node("Concat", *levels, axis=1)


@idiom(2, 4, 11, 17)
def a_yolo_head(g):
    """Boxes and classes from two convolutions, a softmax over bins, grids and strides, all flattened and joined."""
    x = g.node("Mul", y := g.conv(g.input((1, 3, 8, 8)), 3, 8), g.node("Sigmoid", y))
    box = g.reshape(g.conv(g.node("Relu", g.conv(x, 8, 8)), 8, 16, kernel=1), 1, 4, 4, 64)
    box = g.transpose(box, 0, 2, 1, 3)
    box = g.node("Softmax", box, axis=1) if g.opset >= 13 else softmax_of(g, box, 1)
    box = g.reshape(g.node("Conv", box, g.weight(1, 4, 1, 1)), 1, 4, 64)
    low, high = chunk(g, box, 1, 2, 2)
    grid, stride = g.weight(1, 2, 64), g.constant(8.0)
    low, high = g.node("Sub", grid, low), g.node("Add", grid, high)
    centre = g.node("Div", g.node("Add", low, high), g.constant(2.0))
    return g.node("Mul", g.node("Concat", centre, g.node("Sub", high, low), axis=1), stride)


@idiom(4, 5, 17)
def a_stage_of_convnext(g):
    """A depthwise convolution, channels last, an MLP and a layer scale: the residual width goes, norms not exact."""
    x = g.conv(g.input((1, 3, 6, 6)), 3, 8)
    y = g.transpose(g.conv(x, 8, 8, group=8), 0, 2, 3, 1)
    y = g.linear(g.node("Mul", z := g.linear(y, 8, 16), g.node("Sigmoid", z)), 16, 8)
    x = g.node("Add", x, g.transpose(g.node("Mul", y, g.weight(8, low=0.1)), 0, 3, 1, 2))
    return g.conv(x, 8, 4, kernel=1)


@idiom(2, 3, 11, 16)
def slices_of_large_maps_written_in_place(g):
    """y = torch.zeros_like(x); y[:, :6, :, 1:] = x[:, :6, :, :-1], and so on: indices for every element, made of one
    range per axis, which is expanded over the others. The samples are as many as the input has."""
    x = g.node("Relu", g.conv(g.input(("batch", 3, 24, 24)), 3, 10))
    zero = helper.make_tensor("zero", TensorProto.FLOAT, [1], [0])
    y = g.node("ConstantOfShape", g.node("Shape", x), value=zero)
    moved = [(0, 6, cut_out(g, cut_out(g, x, 1, 0, 6), 3, 0, -1), 1), (6, 10, cut_out(g, x, 1, 6, 10), 0)]
    for first, last, new, right in moved:
        samples = g.node("Range", scalar(g, 0), squeeze(g, size_of(g, x, 0), 0), scalar(g, 1))
        axes = [samples, *(g.ints(*range(*bounds)) for bounds in ((first, last), (0, 24), (right, 24)))]
        shape = g.node("Concat", size_of(g, x, 0), g.ints(last - first, 24, 24 - right), axis=0)
        stood = [g.node("Reshape", each, g.ints(-1, *[1] * (3 - axis))) for axis, each in enumerate(axes)]
        index = g.node("Concat", *(unsqueeze(g, g.node("Expand", each, shape), -1) for each in stood), axis=-1)
        y = g.node("ScatterND", y, index, new)
    return g.conv(g.node("Relu", g.conv(y, 10, 6)), 6, 4)


@idiom(2, 3, 18)
def unfolded_and_folded(g):
    """nn.Linear on columns of F.unfold, and F.fold: the taps of each channel are neighbours."""
    x = g.conv(g.input((2, 3, 4, 4)), 3, 20, kernel=1)
    x = g.node("Col2Im", g.reshape(g.node("Relu", x), 2, 20, 16), g.ints(8, 8), g.ints(2, 2), strides=[2, 2])
    return g.conv(g.node("Relu", g.conv(x, 5, 6)), 6, 4)


@idiom(2, 3, 11, 17)
def equal_gains_stored_once(g):
    """GroupNorm's gains (C, 1, 1), all ones: torch writes one of them and a copy of it for each further layer."""
    gain = g.weight(8, 1, 1, low=0.5)
    copies = [gain, g.node("Identity", gain)]
    x = g.node("Mul", g.conv(g.input(("batch", 3, 8, 8)), 3, 8), copies[0])
    x = g.conv(g.node("Relu", x), 8, 6)
    return g.node("Mul", g.conv(g.node("Relu", x), 6, 8), copies[1])
