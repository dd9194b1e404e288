"""Sessions that are measured in turn leave each other alone, and say what to do where a model does not load."""

import time

import pytest

from tests.worker.networks import convnet
from worker.engine.errors import EngineError
from worker.engine.graph import sample_inputs
from worker.engine.measure.session import cpu_session


def test_a_session_takes_no_processor_time_between_its_runs() -> None:
    """What its threads would use by waiting busily is missing to the model whose turn is next."""
    model = convnet(size=64)
    session = cpu_session(model, threads=2)
    inputs = sample_inputs(model, 0, 8)
    used = 0.0
    for _ in range(10):
        session.run(None, inputs)
        before = time.process_time()
        time.sleep(0.02)
        used += time.process_time() - before
    assert used < 0.02, f"{used:.3f} s of processor time in 0.2 s without a run"


def test_a_model_that_does_not_load_may_be_the_engines_own() -> None:
    model = convnet()
    model.graph.node[0].op_type = "NoSuchOp"
    with pytest.raises(EngineError, match="NoSuchOp") as error:
        cpu_session(model, threads=1)
    assert "before uploading" not in error.value.hint
    assert "report it" in error.value.hint
