"""Sessions that are measured in turn leave each other alone."""

import time

from tests.worker.networks import convnet
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
