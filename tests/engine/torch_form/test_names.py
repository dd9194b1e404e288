"""Names of ONNX values and attribute paths, there and back."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from torch import nn

from tests.engine.torch_form.graphs import floats, model_of
from worker.engine.torch_form import build, parity
from worker.engine.torch_form.names import ENCODED, attribute_paths


def value_name(path):
    """The name that a path stands for."""
    if not path.startswith(f"{ENCODED}.n_"):
        return path
    return re.sub("_([0-9a-f]+)_", lambda code: chr(int(code[1], 16)), path.removeprefix(f"{ENCODED}.n_"))


@given(st.sets(st.text(max_size=20), max_size=8))
def test_every_name_returns_from_its_path(names):
    paths = attribute_paths(names)
    assert {value_name(path) for path in paths.values()} == names
    assert len(set(paths.values())) == len(names)


@given(st.sets(st.sampled_from(["a", "a.b", "a.b.c", "weight", "train", "encoded.n_", "x:0", "", ".", "a.", "if"])))
def test_paths_hold_parameters_side_by_side(names):
    root = nn.Module()
    for path in attribute_paths(names).values():
        *modules, leaf = path.split(".")
        place = root
        for part in modules:
            if not hasattr(place, part):
                place.add_module(part, nn.Module())
            place = getattr(place, part)
        assert not hasattr(place, leaf)
        place.register_parameter(leaf, nn.Parameter())


def test_state_dict_names_are_their_own_path():
    assert attribute_paths(["layer1.0.conv1.weight", "fc.bias"]) == {
        "layer1.0.conv1.weight": "layer1.0.conv1.weight",
        "fc.bias": "fc.bias",
    }


def test_other_names_are_encoded():
    assert attribute_paths(["conv1/kernel:0"])["conv1/kernel:0"] == "encoded.n_conv1_2f_kernel_3a_0"


def test_a_weight_may_be_called_like_the_module():
    nodes = [helper.make_node("MatMul", ["x", "self"], ["y"])]
    model = model_of(nodes, {"x": (2, 4)}, ["y"], {"self": floats(4, 3)})
    assert parity(model, build(model), {"x": floats(2, 4)}) <= 1e-6


@pytest.mark.parametrize("names", [("0", "1"), ("a.b", "a_b"), ("class", "None"), ("torch", "self"), ("2d/x", "é")])
def test_inputs_have_any_names(names):
    """Numbers were PyTorch's own once; what the module's code calls its things files may call theirs."""
    nodes = [helper.make_node("MatMul", [names[0], "w"], ["m"]), helper.make_node("Add", ["m", names[1]], ["y"])]
    model = model_of(nodes, {names[0]: (2, 4), names[1]: (2, 3)}, ["y"], {"w": floats(4, 3)})
    assert parity(model, build(model), {names[0]: floats(2, 4), names[1]: floats(2, 3)}) <= 1e-6
