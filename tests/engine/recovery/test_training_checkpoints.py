"""A training that is cut off, at any batch and any number of times, ends as if it had not been."""

import errno
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from test_finetune import OPTIONS, dataset_of, exported, network, one_thread, uploads  # noqa: F401 - fixtures

from tests.largest_file import largest_file
from worker.engine.recovery import Checkpoints, Interrupted, finetune
from worker.engine.recovery.checkpoint import State
from worker.engine.torch_form import build

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
QUICK = OPTIONS.model_copy(
    update={"epochs": 3, "crop_padding": 1, "horizontal_flip": True, "label_smoothing": 0.1, "seed": 3}
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "training.safetensors"


class Cut:
    """Says stop when asked for the `after`th time."""

    def __init__(self, after):
        self.left = after

    def __call__(self):
        self.left -= 1
        return self.left < 0


def curve(training):
    """The training curve without its times."""
    return [{**asdict(row), "seconds": 0} for row in training.epochs]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_resumed_training_is_bit_equal(uploads, path, optimizer):  # noqa: F811
    """Cut again and again, in the middle of epochs and of validations, each time in a new network."""
    model, options = exported(network(4)), QUICK.model_copy(update={"optimizer": optimizer})
    dataset = dataset_of(uploads[4], model)
    whole = build(model)
    expected = finetune(whole, dataset, options)

    cuts, told = 0, []
    while True:
        form = build(model)
        try:
            training = finetune(form, dataset, options, told.append, checkpoints=Checkpoints(path, 0, Cut(7)))
            break
        except Interrupted:
            cuts += 1
    assert cuts > 3
    assert curve(training) == curve(expected)
    assert training.best_epoch == expected.best_epoch
    assert form.write_back().SerializeToString() == whole.write_back().SerializeToString()
    assert [row.epoch for row in told] == [0, 1, 2, 3]  # each once, whatever the number of cuts


def test_resumed_training_without_labels_is_bit_equal(uploads, path):  # noqa: F811
    model, teacher = exported(network(4)), build(exported(network(4)[:-1].append(torch.nn.Linear(128, 4))))
    dataset = replace(dataset_of(uploads[4], model), classes=())
    whole = build(model)
    expected = finetune(whole, dataset, QUICK, teacher=teacher)
    with pytest.raises(Interrupted):
        finetune(build(model), dataset, QUICK, checkpoints=Checkpoints(path, 0, Cut(17)), teacher=teacher)
    resumed = build(model)
    assert curve(finetune(resumed, dataset, QUICK, checkpoints=Checkpoints(path), teacher=teacher)) == curve(expected)
    assert resumed.write_back().SerializeToString() == whole.write_back().SerializeToString()


def test_periodic_checkpoint_survives_what_comes_without_a_warning(uploads, path):  # noqa: F811
    model = exported(network(4))
    dataset, form = dataset_of(uploads[4], model), build(model)

    class PowerFailure(BaseException):
        pass

    saved = []

    def fail_later(share):
        if len(saved) == 13:
            raise PowerFailure

    cut = Checkpoints(path, 0, on_saved=lambda: saved.append(1))
    with pytest.raises(PowerFailure):
        finetune(form, dataset, QUICK, lambda _: None, fail_later, checkpoints=cut)
    resumed, whole = build(model), build(model)
    finetune(resumed, dataset, QUICK, checkpoints=Checkpoints(path))
    finetune(whole, dataset, QUICK)
    assert resumed.write_back().SerializeToString() == whole.write_back().SerializeToString()


def test_checkpoint_of_another_training_is_passed_over(uploads, path):  # noqa: F811
    model = exported(network(4))
    dataset = dataset_of(uploads[4], model)
    with pytest.raises(Interrupted):
        finetune(build(model), dataset, QUICK, checkpoints=Checkpoints(path, 0, Cut(9)))
    other = QUICK.model_copy(update={"learning_rate": 0.05})
    resumed, whole = build(model), build(model)
    assert curve(finetune(resumed, dataset, other, checkpoints=Checkpoints(path))) == curve(
        finetune(whole, dataset, other)
    )


@pytest.mark.parametrize("content", [b"", b"no safetensors", bytes(100)])
def test_unreadable_checkpoint_is_none(path, content):
    path.write_bytes(content)
    assert Checkpoints(path).load() is None


def test_a_checkpoint_is_plain_tensors_and_json(uploads, path):  # noqa: F811
    model = exported(network(4))
    with pytest.raises(Interrupted):
        finetune(build(model), dataset_of(uploads[4], model), QUICK, checkpoints=Checkpoints(path, 0, Cut(12)))
    state = Checkpoints(path).load()
    assert all(isinstance(tensor, torch.Tensor) for tensor in state.tensors.values())
    assert state.values == json.loads(json.dumps(state.values))
    assert not path.with_name(f"{path.name}.partial").exists()


def test_a_full_disk_is_an_error_of_the_system_and_leaves_the_checkpoint_before(path):
    checkpoints = Checkpoints(path)
    checkpoints.save(State({"weights": torch.ones(10)}, {"epoch": 1}))
    with largest_file(10_000), pytest.raises(OSError, match="too large") as caught:
        checkpoints.save(State({"weights": torch.ones(10_000)}, {"epoch": 2}))
    assert caught.value.errno == errno.EFBIG
    assert checkpoints.load().values == {"epoch": 1}
