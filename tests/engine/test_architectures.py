"""Named architectures: exported as they compute, with their names, or refused with what to do."""

import numpy as np
import onnxruntime
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from worker.engine.architectures import architecture_names, export_architecture
from worker.engine.errors import EngineError

CLASSES = 7


def network(name, **options):
    """An architecture in which no two tensors are alike, as after training."""
    torch.manual_seed(0)
    net = torchvision.models.get_model(name, weights=None, num_classes=CLASSES, **options).eval()
    for value in net.state_dict().values():
        if value.is_floating_point():
            value.add_(torch.rand_like(value) * 0.02)
    return net


def saved(path, state):
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    return path


SLOW = ("mnasnet0_5", "shufflenet_v2_x0_5", "mobilenet_v3_small", "densenet121", "swin_t", "vit_b_32", "inception_v3")


@pytest.mark.parametrize("name", ["resnet18", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_equals_the_module_and_keeps_its_names(tmp_path, name):
    size = {"vit_b_32": 224, "inception_v3": 299}.get(name, 64)
    net = network(name, **({"init_weights": False} if name == "inception_v3" else {}))
    model = export_architecture(name, saved(tmp_path / "w", net.state_dict()), CLASSES, (3, size, size))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        x = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(batch))
        (scores,) = session.run(None, {"input": x.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(scores, net(x).numpy(), atol=1e-4, rtol=1e-4)
    norms = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    modules = [m for key, m in net.named_modules() if isinstance(m, nn.BatchNorm2d) and not key.startswith("AuxLogits")]
    assert len(norms) == len(modules)
    stored = {tensor.name for tensor in model.graph.initializer}
    unused = ("num_batches_tracked", "AuxLogits")
    assert {key for key in net.state_dict() if not any(part in key for part in unused)} <= stored
    assert [value.name for value in model.graph.input] == ["input"]
    assert not any(node.metadata_props for node in model.graph.node)


def test_biases_of_zero_stay(tmp_path):
    """As all are before training: left out of a node, they would keep their width when its channels go."""
    state = network("squeezenet1_1").state_dict()
    for key, value in state.items():
        if key.endswith(".bias"):
            value.zero_()
    model = export_architecture("squeezenet1_1", saved(tmp_path / "w", state), CLASSES, (3, 64, 64))
    assert set(state) <= {name for node in model.graph.node for name in node.input}


@pytest.mark.slow
def test_auxiliary_heads_may_be_in_the_weights_or_not(tmp_path):
    net = network("googlenet", init_weights=False)
    state = net.state_dict()
    outputs = []
    for keys in (list(state), [key for key in state if not key.startswith("aux")]):
        path = saved(tmp_path / str(len(keys)), {key: state[key] for key in keys})
        model = export_architecture("googlenet", path, CLASSES, (3, 64, 64))
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        outputs.append(session.run(None, {"input": np.ones((2, 3, 64, 64), np.float32)})[0])
    np.testing.assert_allclose(*outputs, rtol=1e-5)


def refusal(name, path, shape=(3, 64, 64), classes=CLASSES):
    with pytest.raises(EngineError) as caught:
        export_architecture(name, path, classes, shape)
    return caught.value


@pytest.fixture
def weights(tmp_path):
    return saved(tmp_path / "weights", network("squeezenet1_1").state_dict())


def test_an_unknown_name_gets_the_closest_ones(weights):
    error = refusal("resnet-18", weights)
    assert error.code == "unknown_architecture"
    assert "resnet18" in error.hint
    assert {"resnet50", "vit_b_16", "densenet121"} <= set(architecture_names())


def test_weights_that_do_not_fit_are_told_by_key(tmp_path):
    state = network("squeezenet1_1").state_dict()
    state["extra.weight"] = torch.zeros(1)
    del state["features.0.bias"]
    state["classifier.1.weight"] = torch.zeros(3, 512, 1, 1)
    error = refusal("squeezenet1_1", saved(tmp_path / "w", state))
    assert error.code == "weights_do_not_fit"
    for part in (
        "1 missing (features.0.bias)",
        "1 unexpected (extra.weight)",
        "(3, 512, 1, 1) instead of (7, 512, 1, 1)",
    ):
        assert part in error.message


def test_weights_without_step_counters_fit(tmp_path):
    state = {k: v for k, v in network("resnet18").state_dict().items() if not k.endswith("num_batches_tracked")}
    assert export_architecture("resnet18", saved(tmp_path / "w", state), CLASSES, (3, 32, 32)).graph.node


@pytest.mark.parametrize("content", [b"", b"\x80\x04\x95 a pickle", b"\xff" * 64, b'\x10\0\0\0\0\0\0\0{"a":'])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "w"
    path.write_bytes(content)
    error = refusal("resnet18", path)
    assert error.code == "unreadable_weights"
    assert "safetensors" in error.hint


@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 4, 4)])
def test_a_shape_that_the_network_cannot_take(weights, shape):
    assert refusal("squeezenet1_1", weights, shape).code == "input_shape_does_not_fit"
