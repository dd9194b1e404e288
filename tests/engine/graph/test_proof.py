"""The proof says no to wrong surgery: models that run, with every shape as it should be, but with wrong channels.

Each test prunes a network rightly, which passes; then makes the one mistake, and shows that the mistaken model
runs, that its outputs have the shapes of the right one, and that the proof fails.
"""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from tests.engine.graph.cuts import Cut, assert_correct, at_random, cut, run
from tests.engine.graph.graph_builder import GraphBuilder
from tests.engine.graph.random_graphs import Network
from worker.engine.errors import EngineError
from worker.engine.graph import analyze
from worker.engine.proof import Proof, prove
from worker.engine.surgery import Plan, prune


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def proof_of(done: Cut, pruned: onnx.ModelProto) -> Proof:
    return prove(done.analysis, done.plan, pruned)


def assert_refused(done: Cut, wrong: onnx.ModelProto) -> None:
    """`wrong` runs and has the right shapes, and is not what was to be made."""
    assert_correct(done)
    for right_output, wrong_output in zip(run(done.pruned), run(wrong), strict=True):
        assert wrong_output.shape == right_output.shape
        assert np.isfinite(wrong_output).all()
    proof = proof_of(done, wrong)
    assert not proof.passed
    assert proof.max_relative_error > 10 * proof.tolerance


def recut(done: Cut, name: str, axis: int, shift: int = 1) -> onnx.ModelProto:
    """The pruned model with one constant cut by a mask that is shifted along one axis."""
    wrong = copied(done.pruned)
    tensor = next(t for t in wrong.graph.initializer if t.name == name)
    slot = next(s for s in done.analysis.propagation.slots if s[0] == name)
    alive = done.analysis.alive(done.plan.kept)
    value = done.analysis.graph.array(name)
    for i, labels in enumerate(done.analysis.propagation.slot_dims(slot)):
        if labels is not None:
            mask = alive[labels]
            value = np.compress(np.roll(mask, shift) if i == axis else mask, value, axis=i)
    assert value.shape == tuple(tensor.dims)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), name))
    return wrong


def every_third(model: onnx.ModelProto) -> Cut:
    """Keep units 0, 3, 6, ...: shifted by one or two, that is another choice of as many, or one fewer."""
    analysis = analyze(model)
    plan = Plan({g.id: np.arange(len(g)) % 3 == 0 for g in analysis.groups})
    return Cut(analysis, plan, prune(analysis, plan))


def plain() -> onnx.ModelProto:
    """conv - batch norm - relu - conv, with names."""
    g = GraphBuilder()
    x = g.input(("batch", 3, 8, 8))
    y = g.node("Conv", x, g.weight(12, 3, 3, 3, name="w1"), g.weight(12, low=-0.5, name="b1"), pads=[1] * 4)
    parameters = [
        g.weight(12, low=low, name=n)
        for n, low in zip(("gain", "shift", "mean", "var"), (0.5, -0.5, -0.5, 0.5), strict=True)
    ]
    y = g.node("Relu", g.node("BatchNormalization", y, *parameters))
    return g.model(g.node("Conv", y, g.weight(5, 12, 1, 1, name="w2"), g.weight(5, low=-0.5)))


def test_masks_shifted_by_one_everywhere():
    """What remains fits together, but it is the neighbours of the channels that were to stay."""
    done = every_third(plain())
    shifted = Plan({group: np.roll(mask, 1) for group, mask in done.plan.kept.items()})
    assert_refused(done, prune(done.analysis, shifted))


@pytest.mark.parametrize(
    ("name", "axis"), [("w1", 0), ("b1", 0), ("w2", 1), ("gain", 0), ("shift", 0), ("mean", 0), ("var", 0)]
)
def test_one_weight_cut_one_channel_off(name: str, axis: int):
    done = every_third(plain())
    assert_refused(done, recut(done, name, axis))


def two_branches(join: Callable[[GraphBuilder, str, str], str]) -> onnx.ModelProto:
    g = GraphBuilder(seed=3)
    x = g.input((2, 3, 6, 6))
    a, b = (g.node("Relu", g.conv(x, 3, 8)) for _ in range(2))
    return g.model(g.node("Conv", join(g, a, b), g.weight(4, 16, 1, 1, name="reader")))


def test_a_wrong_permutation_after_a_concat():
    done = cut(two_branches(lambda g, a, b: g.node("Concat", a, b, axis=1)))
    wrong = copied(done.pruned)
    joined = next(n for n in wrong.graph.node if n.op_type == "Concat")
    joined.input[:] = list(joined.input)[::-1]
    assert_refused(done, wrong)


def test_a_consumer_of_a_concat_cut_one_off():
    done = cut(two_branches(lambda g, a, b: g.node("Concat", a, b, axis=1)))
    assert_refused(done, recut(done, "reader", 1))


def test_a_concat_whose_second_half_is_cut_like_the_first():
    """The offset of the second branch forgotten: its rows of the reading weight are those of the first one."""
    done = cut(two_branches(lambda g, a, b: g.node("Concat", a, b, axis=1)))
    wrong = copied(done.pruned)
    tensor = next(t for t in wrong.graph.initializer if t.name == "reader")
    value = numpy_helper.to_array(tensor).copy()
    value[:, value.shape[1] // 2 :] = value[:, : value.shape[1] // 2]
    tensor.CopyFrom(numpy_helper.from_array(value, "reader"))
    assert_refused(done, wrong)


def replaced_input(done: Cut, op: str, position: int, change: Callable[[np.ndarray], np.ndarray]) -> onnx.ModelProto:
    """The pruned model with another value of one integer input of the only node of its kind."""
    wrong = copied(done.pruned)
    (node,) = (n for n in wrong.graph.node if n.op_type == op)
    value = next(numpy_helper.to_array(t) for t in wrong.graph.initializer if t.name == node.input[position])
    wrong.graph.initializer.append(numpy_helper.from_array(change(value), "changed"))
    node.input[position] = "changed"
    return wrong


def one_layer(between: Callable[[GraphBuilder, str], str], channels: int) -> onnx.ModelProto:
    g = GraphBuilder(seed=5)
    x = g.node("Relu", g.conv(g.input((2, 3, 6, 6)), 3, 12))
    return g.model(g.conv(between(g, x), channels, 4))


def test_bounds_of_a_slice_one_off():
    def front(g: GraphBuilder, x: str) -> str:
        return g.node("Add", *(g.node("Slice", x, g.ints(a), g.ints(b), g.ints(1)) for a, b in ((0, 8), (4, 12))))

    done = every_third(one_layer(front, 8))
    wrong = copied(done.pruned)
    node = next(n for n in wrong.graph.node if n.op_type == "Slice")
    bounds = {t.name: numpy_helper.to_array(t) for t in wrong.graph.initializer}
    for position, name in ((1, "start"), (2, "end")):
        wrong.graph.initializer.append(numpy_helper.from_array(bounds[node.input[position]] + 1, name))
        node.input[position] = name
    assert_refused(done, wrong)


def test_sizes_of_a_split_exchanged():
    def swapped(g: GraphBuilder, x: str) -> str:
        a, b = g.node("Split", x, g.ints(4, 8), outputs=2, axis=1)
        return g.node("Concat", g.node("Tanh", b), a, axis=1)

    done = cut(one_layer(swapped, 12), seed=1)
    assert_refused(done, replaced_input(done, "Split", 1, lambda sizes: sizes[::-1].copy()))


def test_indices_of_a_gather_renumbered_wrongly():
    order = np.random.default_rng(0).permutation(12)
    done = cut(one_layer(lambda g, x: g.node("Gather", x, g.ints(*order.tolist()), axis=1), 12))
    assert_refused(done, replaced_input(done, "Gather", 1, lambda index: np.roll(index, 1)))


def test_padded_channels_on_the_wrong_side():
    def padded(g: GraphBuilder, x: str) -> str:
        return g.node("Pad", x, g.ints(0, 2, 0, 0, 0, 6, 0, 0))

    analysis = analyze(one_layer(padded, 20))
    keep = np.ones(len(analysis.groups[0]), dtype=bool)
    keep[:4] = False
    plan = Plan({analysis.groups[0].id: keep})
    done = Cut(analysis, plan, prune(analysis, plan))
    wrong = copied(done.pruned)
    (node,) = (n for n in wrong.graph.node if n.op_type == "Pad")
    wrong.graph.initializer.append(numpy_helper.from_array(np.array([0, 6, 0, 0, 0, 2, 0, 0]), "pads"))
    node.input[1] = "pads"
    assert_refused(done, wrong)


def attention() -> onnx.ModelProto:
    """Two heads of width 6; the scale is computed from the width, as exporters write it."""
    g = GraphBuilder(seed=7)
    x = g.input((2, 5, 8))
    names = ("query", "key", "value")
    weights = {n: g.constant(g.normal(8, 12) * 0.6, n) for n in names}
    q, k, v = (g.transpose(g.reshape(g.node("MatMul", x, weights[n]), 0, 0, 2, 6), 0, 2, 1, 3) for n in names)
    width = g.node("Gather", g.node("Shape", q), g.ints(3), axis=0)
    scale = g.node("Sqrt", g.node("Cast", width, to=1))
    scores = g.node("Div", g.node("MatMul", q, g.transpose(k, 0, 1, 3, 2)), scale)
    mixed = g.node("MatMul", g.node("Softmax", scores, axis=-1), v)
    return g.model(g.linear(g.reshape(g.transpose(mixed, 0, 2, 1, 3), 0, 0, 12), 12, 4))


def test_an_attention_scaled_by_its_new_width():
    """1/sqrt(d) must stay that of the original: a Shape read off the narrower tensor computes another."""
    done = cut(attention())
    wrong = copied(done.pruned)
    (root,) = (n for n in wrong.graph.node if n.op_type == "Sqrt")
    (kept_width,) = (g for g in wrong.graph.node if g.op_type == "Cast")
    wrong.graph.initializer.append(numpy_helper.from_array(np.array([3], dtype=np.float32), "new_width"))
    assert kept_width.output[0] == root.input[0]
    root.input[0] = "new_width"
    assert_refused(done, wrong)


def test_keys_that_belong_to_other_queries():
    done = cut(attention())
    assert_refused(done, recut(done, "key", 1))


def test_an_error_behind_a_saturated_output_is_seen():
    """The outputs are all ones, right or wrong: the layers in between tell."""
    g = GraphBuilder()
    y = g.conv(g.node("Relu", g.node("Conv", g.input((1, 3, 6, 6)), g.weight(12, 3, 1, 1, name="w"))), 12, 4)
    done = every_third(g.model(g.node("Sigmoid", g.node("Add", g.node("Abs", y), g.constant(50.0)))))
    wrong = recut(done, "w", 0)
    np.testing.assert_array_equal(run(wrong)[0], run(done.pruned)[0])
    assert_refused(done, wrong)


@pytest.mark.parametrize("part", range(2))
def test_whenever_a_weight_cut_wrongly_shows_in_the_outputs_the_proof_fails(part: int):
    """Random networks with one random weight cut by a shifted mask."""
    shown = 0
    for number in range(90):
        rng = np.random.default_rng([part, number])
        model = Network(lambda lowest, highest, rng=rng: int(rng.integers(lowest, highest + 1))).grow()
        analysis = analyze(model)
        plan = at_random(analysis, number)
        done = Cut(analysis, plan, prune(analysis, plan))
        wrong = _mistaken(done, rng)
        if wrong is None:
            continue
        right_outputs, wrong_outputs = run(done.pruned), run(wrong)
        assert [w.shape for w in wrong_outputs] == [r.shape for r in right_outputs]
        if any(np.abs(r - w).max() > 0.01 * np.abs(r).max() for r, w in zip(right_outputs, wrong_outputs, strict=True)):
            shown += 1
            assert not proof_of(done, wrong).passed, number
    assert shown > 15


def _mistaken(done: Cut, rng: np.random.Generator) -> onnx.ModelProto | None:
    """The pruned model with one weight cut one channel off along one axis; None where none was cut."""
    alive = done.analysis.alive(done.plan.kept)
    stored = {t.name: tuple(t.dims) for t in done.pruned.graph.initializer}
    choices = [
        (slot[0], axis)
        for slot in done.analysis.propagation.slots
        if slot[0] in stored
        for axis, labels in enumerate(done.analysis.propagation.slot_dims(slot))
        if labels is not None and not alive[labels].all() and stored[slot[0]][axis] == alive[labels].sum()
    ]
    if not choices:
        return None
    name, axis = choices[int(rng.integers(len(choices)))]
    return recut(done, name, axis)


def test_a_constant_spread_over_the_batch_is_compared_at_every_size_of_it():
    g = GraphBuilder()
    images = g.input(("batch", 3, 8, 8))
    pixels = g.node("Reshape", images, g.constant(np.array([0, 3, 64])))
    x = g.node("MatMul", g.node("Transpose", pixels, perm=[0, 2, 1]), g.weight(3, 12))
    batch = g.node("Slice", g.node("Shape", x), *(g.constant(np.array([n])) for n in (0, 1, 0)))
    shape = g.node("Concat", batch, g.constant(np.array([1, 12])), axis=0)
    tokens = g.node("Concat", g.node("Expand", g.weight(1, 1, 12), shape), x, axis=1)
    wide = g.node("Relu", g.node("MatMul", tokens, g.weight(12, 16)))
    first = g.node("Gather", g.node("MatMul", wide, g.weight(16, 12)), g.constant(np.array(0)), axis=1)
    proof = assert_correct(cut(g.model(g.node("MatMul", first, g.weight(12, 5)))))
    assert [run.input_shapes[images][0] for run in proof.runs] == [2, 3, 1]
    assert proof.compared_tensors == 4  # what each MatMul makes


@pytest.mark.parametrize(("smallest", "sizes"), [(1, [64, 64, 128]), (200, [224, 224, 256])])
def test_another_size_is_the_next_larger_one(smallest: int, sizes: list[int]):
    """Attention among all positions holds nine times as much at 224 as at 128, which no machine may have."""
    g = GraphBuilder()
    images = g.input(("batch", 3, "height", "width"))
    x = g.node("Conv", g.node("Relu", g.conv(images, 3, 4)), g.weight(2, 4, smallest, 1))
    proof = assert_correct(cut(g.model(x)))
    assert [run.input_shapes[images][2] for run in proof.runs] == sizes


@pytest.mark.parametrize("integers", [TensorProto.INT64, TensorProto.INT32])
def test_a_slice_goes_on_computing_its_bounds_on_other_axes_than_the_channels(integers):
    """tf2onnx's StridedSlice: one Slice over all axes, its ends concatenated from the shape."""
    g = GraphBuilder()

    def numbers(*values):
        return g.constant(np.array(values, onnx.helper.tensor_dtype_to_np_dtype(integers)))

    images = g.input(("batch", 3, 8, 8))
    x = g.node("Relu", g.conv(images, 3, 12))
    batch = g.node("Cast", g.node("Slice", g.node("Shape", x), g.ints(0), g.ints(1)), to=integers)
    ends = g.node("Concat", batch, numbers(6, 8, 7), axis=0)
    done = cut(g.model(g.conv(g.node("Slice", x, numbers(0, 0, 0, 0), ends, numbers(0, 1, 2, 3)), 6, 4)))
    assert done.analysis.groups
    assert_correct(done)
    five = {images: np.random.default_rng(0).random((5, 3, 8, 8), dtype=np.float32)}
    assert run(done.pruned, five)[0].shape == (5, 4, 8, 7)


def test_a_bound_that_is_frozen_at_the_first_batch_size_is_found_out():
    g = GraphBuilder()
    x = g.node("Relu", g.conv(g.input(("batch", 3, 8, 8)), 3, 12))
    batch = g.node("Slice", g.node("Shape", x), g.ints(0), g.ints(1))
    done = cut(g.model(g.conv(g.node("Slice", x, g.ints(0), batch, g.ints(0)), 12, 4)))
    assert prove(done.analysis, done.plan, done.pruned).passed
    node = next(n for n in done.pruned.graph.node if n.op_type == "Slice" and n.input[0] == x)
    done.pruned.graph.initializer.append(numpy_helper.from_array(np.array([2]), "two"))
    node.input[2] = "two"
    assert not prove(done.analysis, done.plan, done.pruned).passed


def test_a_declaration_without_a_shape_stays_one():
    g = GraphBuilder()
    model = g.model(g.conv(g.node("Relu", g.conv(g.input((1, 3, 8, 8)), 3, 8)), 8, 4))
    declared = model.graph.value_info.add(name=model.graph.initializer[0].name)
    declared.type.tensor_type.elem_type = TensorProto.FLOAT
    assert_correct(cut(model))


def test_a_network_for_which_the_runtime_has_no_kernels_is_refused_with_the_reason():
    """ONNX Runtime convolves nothing in float64."""
    g = GraphBuilder()
    model = g.model(g.conv(g.node("Relu", g.conv(g.input((1, 3, 8, 8)), 3, 8)), 8, 4))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.DOUBLE
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    done = cut(model)
    with pytest.raises(EngineError, match="implementation for Conv") as refused:
        prove(done.analysis, done.plan, done.pruned)
    assert "float32" in refused.value.hint


def test_a_network_that_gives_no_numbers_is_not_said_to_be_proved():
    g = GraphBuilder()
    x = g.conv(g.node("Relu", g.conv(g.input((1, 3, 8, 8)), 3, 8)), 8, 4)
    done = cut(g.model(g.node("Log", g.node("Neg", g.node("Abs", x)))))
    with pytest.raises(EngineError, match="NaN") as refused:
        prove(done.analysis, done.plan, done.pruned)
    assert refused.value.code == "not_finite"
