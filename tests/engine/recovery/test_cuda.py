"""Training on a GPU, where there is one: it learns, goes on from a checkpoint, and leaves its weights to the CPU."""

from pathlib import Path

import pytest
import torch
from test_finetune import OPTIONS, dataset_of, exported, network, one_thread, uploads  # noqa: F401 - fixtures

from worker.engine.measure import evaluate
from worker.engine.recovery import Checkpoints, Interrupted, finetune
from worker.engine.torch_form import build

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU that torch can use"),
]
ON_GPU = OPTIONS.model_copy(update={"device": "cuda"})


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_learns_and_leaves_its_weights_to_the_cpu(uploads, precision):  # noqa: F811
    model = exported(network(4))
    dataset, form = dataset_of(uploads[4], model), build(model)
    training = finetune(form, dataset, ON_GPU.model_copy(update={"precision": precision}))
    assert training.device == torch.cuda.get_device_name()
    assert training.epochs[-1].train_loss < training.epochs[0].train_loss
    assert {parameter.device.type for parameter in form.module.parameters()} == {"cpu"}
    assert evaluate(form.write_back(), dataset.test, 4).top1 > 0.9


def test_it_goes_on_where_it_was_cut_off(uploads, tmp_path: Path):  # noqa: F811
    model = exported(network(4))
    dataset, path = dataset_of(uploads[4], model), tmp_path / "training.safetensors"
    asked = iter([False] * 20 + [True])
    with pytest.raises(Interrupted):
        finetune(build(model), dataset, ON_GPU, checkpoints=Checkpoints(path, 0, lambda: next(asked)))
    resumed, whole = build(model), build(model)
    finetune(resumed, dataset, ON_GPU, checkpoints=Checkpoints(path))
    finetune(whole, dataset, ON_GPU)
    ours, theirs = (dict(form.module.named_parameters()) for form in (resumed, whole))
    for name, parameter in theirs.items():  # reductions on a GPU add up in no fixed order
        torch.testing.assert_close(ours[name], parameter, rtol=1e-3, atol=1e-4)
