"""Workers killed at random moments, the API restarted, the broker wiped: no job is lost, none is done twice."""

import pytest

from tests.worker.faults.kill_run import KillRun, Scale
from tests.worker.plane import Plane

SMALL = Scale(jobs=8, workers=2, kills=3, api_restarts=1, broker_wipes=1, timeout_s=600)
FULL = Scale(jobs=200, workers=3, kills=50, api_restarts=5, broker_wipes=5, timeout_s=5000)


@pytest.mark.timeout(700)
def test_some_kills(plane: Plane) -> None:
    _run(plane, SMALL)


@pytest.mark.slow
@pytest.mark.timeout(6000)
def test_many_kills(either_plane: Plane) -> None:
    _run(either_plane, FULL)


def _run(plane: Plane, scale: Scale) -> None:
    run = KillRun(plane, scale)
    run.run()
    print(f"\n{plane.database.engine.dialect.name}: {run.figures()}")
    assert run.violations() == []
    assert run.figures()["lost"] == run.figures()["doubled"] == 0
    assert run.done["kills"] == scale.kills
