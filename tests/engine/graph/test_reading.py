"""What load_model puts right in files that ONNX Runtime takes and others do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.engine.graph.cuts import assert_correct, cut, run
from tests.engine.graph.graph_builder import GraphBuilder
from worker.engine.errors import EngineError
from worker.engine.export.half_precision import to_half_precision
from worker.engine.graph import load_model, sample_inputs
from worker.engine.graph.onnx_graph import bodies_of
from worker.engine.torch_form import build, parity


def network() -> onnx.ModelProto:
    g = GraphBuilder(13)
    x = g.node("Relu", g.conv(g.input(("batch", 3, 8, 8)), 3, 8))
    return g.model(g.gemm(g.node("Flatten", g.node("GlobalAveragePool", g.conv(x, 8, 8))), 8, 4))


def branched() -> onnx.ModelProto:
    g = GraphBuilder(13)
    x = g.input((2, 3, 8, 8))
    bright = g.node("Greater", g.node("ReduceMax", x, keepdims=0), g.constant(0.5))
    bodies = []
    for op in ("Relu", "Tanh"):
        inner = g.inside()
        made = inner.node(op, inner.conv(x, 3, 4))
        bodies.append(inner.body([], [helper.make_tensor_value_info(made, TensorProto.FLOAT, (2, 4, 8, 8))]))
    branch = g.node("If", bright, then_branch=bodies[0], else_branch=bodies[1])
    return g.model(g.conv(g.node("Relu", g.conv(branch, 4, 8)), 8, 4))


def read(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    onnx.save(model, folder / "model.onnx")
    return load_model(folder / "model.onnx")


def assert_usable(original: onnx.ModelProto, loaded: onnx.ModelProto) -> None:
    """It computes what it did, has a torch form and a float16 file, and is cut like any other."""
    inputs = sample_inputs(original)
    for found, expected in zip(run(loaded, inputs), run(original, inputs), strict=True):
        np.testing.assert_array_equal(found, expected)
    onnx.checker.check_model(loaded, full_check=True)
    assert parity(loaded, build(loaded), inputs) < 1e-4
    done = cut(loaded)
    assert_correct(done)
    run(to_half_precision(done.pruned, keep_io=True))


@pytest.mark.parametrize("build_model", [network, branched])
def test_nodes_that_are_named_alike(build_model, tmp_path: Path):
    model = build_model()
    alike = onnx.ModelProto()
    alike.CopyFrom(model)
    for nodes in (alike.graph.node, *(body.node for node in alike.graph.node for body in bodies_of(node))):
        for node in nodes:
            node.name = node.op_type
    assert_usable(model, read(alike, tmp_path))


@pytest.mark.parametrize("build_model", [network, branched])
@pytest.mark.parametrize("names", [("ai.onnx",), ("", "ai.onnx")])
def test_the_standard_domain_by_its_other_name(build_model, names: tuple[str, ...], tmp_path: Path):
    model = build_model()
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(name, 13) for name in names)
    pending = [model.graph]
    while pending:
        for node in pending.pop().node:
            node.domain = "ai.onnx"
            pending.extend(bodies_of(node))
    assert_usable(build_model(), read(model, tmp_path))


def sparse(tensor: TensorProto, *, coordinates: bool) -> onnx.SparseTensorProto:
    array = numpy_helper.to_array(tensor)
    if coordinates:
        indices, values = np.argwhere(array), array[tuple(np.argwhere(array).T)]
    else:
        indices, values = np.flatnonzero(array), array.reshape(-1)[np.flatnonzero(array)]
    parts = (numpy_helper.from_array(part, tensor.name) for part in (values, indices.astype(np.int64)))
    return helper.make_sparse_tensor(*parts, list(array.shape))


def with_sparse_weights(model: onnx.ModelProto, *, as_constants: bool) -> onnx.ModelProto:
    """The kernels of a model, the small ones of which are made zero, stored sparsely; and the same stored densely."""
    pending = [model.graph]
    while pending:
        graph = pending.pop()
        constants = []
        for tensor in [t for t in graph.initializer if len(t.dims) == 4]:
            graph.initializer.remove(tensor)
            if as_constants:
                value = sparse(tensor, coordinates=False)
                constants.append(helper.make_node("Constant", [], [tensor.name], sparse_value=value))
            else:
                graph.sparse_initializer.append(sparse(tensor, coordinates=len(graph.sparse_initializer) == 0))
        nodes = [*constants, *graph.node]
        del graph.node[:]
        graph.node.extend(nodes)
        pending.extend(body for node in graph.node for body in bodies_of(node))
    return model


def half_empty(model: onnx.ModelProto) -> onnx.ModelProto:
    pending = [model.graph]
    while pending:
        graph = pending.pop()
        for tensor in graph.initializer:
            array = numpy_helper.to_array(tensor)
            if array.ndim == 4:
                tensor.CopyFrom(numpy_helper.from_array(np.where(np.abs(array) > 0.1, array, 0), tensor.name))
        pending.extend(body for node in graph.node for body in bodies_of(node))
    return model


@pytest.mark.parametrize("build_model", [network, branched])
@pytest.mark.parametrize("as_constants", [False, True])
def test_sparse_weights_are_weights(build_model, as_constants: bool, tmp_path: Path):
    expected = half_empty(build_model())
    stored = with_sparse_weights(half_empty(build_model()), as_constants=as_constants)
    assert_usable(expected, read(stored, tmp_path))


def test_zeros_that_fill_the_memory_are_refused(tmp_path: Path):
    model = network()
    values, indices = np.ones(1, np.float32), np.zeros(1, np.int64)
    for _ in range(2):
        parts = (numpy_helper.from_array(part, "bomb") for part in (values, indices))
        model.graph.sparse_initializer.append(helper.make_sparse_tensor(*parts, [2**14, 2**14]))
    with pytest.raises(EngineError, match="sparse") as error:
        read(model, tmp_path)
    assert error.value.code == "too_large"


def test_sparse_tensors_that_make_no_sense_are_refused(tmp_path: Path):
    good = (numpy_helper.from_array(part, "odd") for part in (np.ones(1, np.float32), np.zeros(1, np.int64)))
    beyond = (numpy_helper.from_array(part, "odd") for part in (np.ones(1, np.float32), np.full(1, 9, np.int64)))
    untyped = helper.make_sparse_tensor(*good, [3, 3])
    untyped.values.data_type = 99
    for odd in (untyped, helper.make_sparse_tensor(*beyond, [3, 3])):
        model = network()
        model.graph.sparse_initializer.append(odd)
        with pytest.raises(EngineError, match="sparse tensor") as error:
            read(model, tmp_path)
        assert error.value.code == "not_onnx"


def test_a_batch_that_is_declared_as_none_is_any(tmp_path: Path):
    """As MXNet writes it."""
    model = network()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 0
    loaded = read(model, tmp_path)
    assert [value.shape[0] for value in sample_inputs(loaded).values()] == [2]
    done = cut(loaded)
    assert_correct(done)
    assert parity(loaded, build(loaded), sample_inputs(loaded)) < 1e-4


@pytest.mark.parametrize("kernel", [(3, 3), (2, 4)])
@pytest.mark.parametrize(("auto_pad", "odd_one_first"), [("SAME_UPPER", False), ("SAME_LOWER", True)])
def test_dilated_kernels_that_keep_the_size_have_their_pads_written_out(
    kernel: tuple[int, int], auto_pad: str, odd_one_first: bool, tmp_path: Path
):
    """ONNX Runtime refuses to find them for itself."""

    def dilated(**pads) -> onnx.ModelProto:
        g = GraphBuilder(17)
        x = g.node("Relu", g.conv(g.input((2, 3, 9, 9)), 3, 8))
        x = g.node("Relu", g.node("Conv", x, g.weight(8, 8, *kernel), dilations=[1, 3], **pads))
        return g.model(g.conv(x, 8, 4))

    totals = [kernel[0] - 1, 3 * (kernel[1] - 1)]
    less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
    expected = dilated(pads=[*more, *less] if odd_one_first else [*less, *more])
    loaded = read(dilated(auto_pad=auto_pad), tmp_path)
    assert_usable(expected, loaded)
    assert run(loaded, sample_inputs(loaded))[0].shape == (2, 4, 9, 9)
