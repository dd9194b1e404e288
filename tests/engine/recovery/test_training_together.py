"""Two processes end a training with the weights that one ends it with, and both with the same."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from tests.engine.recovery import trainings
from tests.engine.recovery.trainings import CASES, RESIDUAL, WITH_A_CHOICE, WITH_NORMS, WITHOUT_NORMS, Place, weights
from tests.largest_file import largest_file
from tests.worker.networks import coloured_squares, convnet, residual_network
from worker.engine.recovery import SelectiveDecay
from worker.engine.recovery.arithmetic import CANDIDATES
from worker.engine.recovery.team import ALONE
from worker.engine.recovery.together import rows, weight
from worker.order import Failure
from worker.runner.assignment import Assignment

ROOT = Path(__file__).resolve().parents[3]
GPUS = torch.cuda.device_count()
needs_gpus = pytest.mark.skipif(GPUS < 2, reason="this machine has no two GPUs that torch can use")
# What weights of one process and of several may differ by: sums are taken in another order.
EXACT, COARSE = {"rtol": 1e-4, "atol": 1e-5}, {"rtol": 1e-2, "atol": 1e-3}


def without_norms(model: onnx.ModelProto) -> onnx.ModelProto:
    norms = {n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "BatchNormalization"}
    kept = [n for n in model.graph.node if n.op_type != "BatchNormalization"]
    for node in kept:
        inputs = [norms.get(name, name) for name in node.input]
        del node.input[:]
        node.input.extend(inputs)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


def with_a_choice(model: onnx.ModelProto) -> onnx.ModelProto:
    """A branch whose weights no gradient reaches adds a number to all scores."""
    weights = np.random.default_rng(1).normal(0, 0.3, (4, 8, 1, 1)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weights, "side.weight"))
    model.graph.node.extend(
        [
            helper.make_node("Conv", ["r1", "side.weight"], ["side"]),
            helper.make_node("GlobalAveragePool", ["side"], ["side_pooled"]),
            helper.make_node("Flatten", ["side_pooled"], ["side_flat"]),
            helper.make_node("ArgMax", ["side_flat"], ["chosen"], axis=1, keepdims=1),
            helper.make_node("Cast", ["chosen"], ["number"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["logits", "number"], ["shifted"]),
        ]
    )
    model.graph.output[0].name = "shifted"
    return model


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=needs_gpus)])
def together(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """All trainings, run by a team; the folder where they lie."""
    folder, device = tmp_path_factory.mktemp("team"), request.param
    onnx.save(convnet(width=8), folder / WITH_NORMS)
    onnx.save(without_norms(convnet(width=8)), folder / WITHOUT_NORMS)
    onnx.save(residual_network(blocks=4, width=8, size=12), folder / RESIDUAL)
    onnx.save(with_a_choice(convnet(width=8)), folder / WITH_A_CHOICE)
    onnx.save(convnet(width=8, seed=5), folder / "teacher.onnx")
    (folder / "images.npz").write_bytes(coloured_squares())
    (folder / "tmp").mkdir()
    command = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", trainings.__file__]
    subprocess.run(
        [sys.executable, "-m", *command, str(folder), device],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        check=True,
        timeout=250,
    )
    return Place(folder, "alone", device)


@pytest.mark.parametrize("name", CASES)
def test_same_weights_as_one_process(together: Place, name: str) -> None:
    first, second = (torch.load(together.folder / f"process{rank}" / f"{name}.pt") for rank in (0, 1))
    assert all(torch.equal(value, second[path]) for path, value in first.items())
    expected = weights(CASES[name](together, ALONE))
    for path, value in expected.items():
        coarse = name == "mixed_precision" or together.device == "cuda"
        torch.testing.assert_close(first[path], value, **(COARSE if coarse else EXACT))


def test_all_processes_end_alike(together: Place) -> None:
    told = [json.loads((together.folder / f"process{rank}" / "told.json").read_text()) for rank in (0, 1)]
    assert told[0] == told[1]
    assert told[0]["diverged"] == "diverged"
    assert told[0]["arithmetic"] == asdict(CANDIDATES[1])  # what the first one found


def test_one_that_gives_up_is_heard(together: Place) -> None:
    """Its reason is the job's, not that it is gone."""
    said = Failure.model_validate_json((together.folder / "process0" / "given_up.json").read_text())
    assert (said.error.code, said.error.stage, said.retry) == ("out_of_memory", "finetune", True)


def test_an_assignment_comes_through_its_files_whole(tmp_path: Path) -> None:
    model = convnet(width=8)
    masks = {"conv1.weight": np.arange(8 * 8 * 9).reshape(8, 8, 3, 3) % 5 > 0}
    decay = SelectiveDecay({"path.of.weight": torch.arange(12).view(3, 4) % 2 > 0}, "swd", 1e-3, 2.0)
    sent = Assignment(model, trainings.OPTIONS, tmp_path / "checkpoint", masks, decay, taught=True)
    sent.save(tmp_path / "assignment")
    heard = Assignment.load(tmp_path / "assignment")
    assert heard.model == sent.model
    assert (heard.options, heard.checkpoint, heard.taught) == (sent.options, sent.checkpoint, True)
    assert np.array_equal(heard.masks["conv1.weight"], masks["conv1.weight"])
    assert heard.decay is not None
    assert torch.equal(heard.decay.doomed["path.of.weight"], decay.doomed["path.of.weight"])
    assert (heard.decay.growth, heard.decay.first, heard.decay.last) == ("swd", 1e-3, 2.0)


def test_an_assignment_that_finds_no_room_says_so(tmp_path: Path) -> None:
    decay = SelectiveDecay({"path.of.weight": torch.zeros(100_000, dtype=torch.bool)}, "swd", 1e-3, 2.0)
    sent = Assignment(convnet(width=8), trainings.OPTIONS, tmp_path / "checkpoint", {}, decay, taught=True)
    with largest_file(50_000), pytest.raises(OSError, match="too large") as caught:
        sent.save(tmp_path / "assignment")
    assert caught.value.errno == errno.EFBIG


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 9])
def test_parts_are_the_whole_batch(size: int) -> None:
    """Each sample counts once, whether or not there are enough for all."""
    counted = [0.0] * size
    for rank in range(3):
        for row in range(size)[rows(size, rank, 3)]:
            counted[row] += weight(size, 3)
    assert counted == pytest.approx([1.0] * size)
