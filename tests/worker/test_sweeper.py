"""The sweeper reaps and rings."""

import threading

import pytest
from redis.exceptions import ConnectionError as BrokerAway
from sqlalchemy import update

from models_store.database_time import database_now
from models_store.documents.job import JobState
from models_store.tables import Job
from tests.waiting import until
from tests.worker.plane import Plane
from worker.celery_app import make_celery
from worker.settings import WorkerSettings
from worker.sweeper import run, sweep


def _rings(plane: Plane) -> int:
    return int(plane.broker.client.llen("celery"))


def test_rings_once_for_each_queued_job(plane: Plane) -> None:
    inputs = plane.ready_inputs()
    for _ in range(3):
        plane.submit(**inputs)
    with make_celery(plane.broker.url) as application:
        assert sweep(plane.database, application).rings == 3
        assert sweep(plane.database, application).rings == 0
    assert _rings(plane) == 3


def test_nothing_queued_nothing_rung(plane: Plane) -> None:
    with make_celery(plane.broker.url) as application:
        assert sweep(plane.database, application).queued == 0
    assert _rings(plane) == 0


def test_reaps_and_rings_in_one_sweep(plane: Plane) -> None:
    job_id = plane.submit(**plane.ready_inputs())
    assert plane.claim() is not None
    with plane.database.session() as session:
        session.execute(update(Job).where(Job.id == job_id).values(lease_expires_at=database_now(-1)))
    with make_celery(plane.broker.url) as application:
        swept = sweep(plane.database, application)
    assert swept.reaped == (job_id,)
    assert swept.rings == 1
    assert plane.job(job_id).state is JobState.QUEUED


def test_goes_on_through_an_outage_of_the_broker(plane: Plane) -> None:
    """Reaping needs no broker; ringing goes on when it is back."""
    plane.submit(**plane.ready_inputs())
    plane.broker.stop()
    stop = threading.Event()
    with make_celery(plane.broker.url) as application:
        with pytest.raises(BrokerAway):
            sweep(plane.database, application)
        settings = WorkerSettings(data_dir=plane.folder, sweep_s=0.05)
        thread = threading.Thread(target=run, args=(plane.database, application, plane.blobs, settings, stop))
        thread.start()
        plane.broker.start()
        until(lambda: _rings(plane) == 1, 30, "the ring")
        stop.set()
        thread.join()
