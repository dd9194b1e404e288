"""The Celery application: a broker message is a doorbell, the job's row is the job.

Messages are acknowledged before the job runs and carry nothing, so losing or doubling one is harmless: the sweeper
rings again for every queued row, and only a claim on the row starts work.
"""

from collections.abc import Sequence

from celery import Celery

from worker.settings import WorkerSettings

RING = "espalier.ring"
DELIVER = "espalier.deliver"
MAX_RINGS = 64
"""At once: more wake no more workers."""
DELIVERIES = "deliveries"  # the courier's queue


def make_celery(redis_url: str, include: Sequence[str] = ("worker.tasks",)) -> Celery:
    """An application on this broker; importing it imports no engine."""
    application = Celery("espalier", broker=redis_url, include=include)
    application.conf.update(
        accept_content=["json"],
        broker_connection_max_retries=None,
        broker_connection_retry_on_startup=True,
        result_backend=None,
        task_acks_late=False,
        task_ignore_result=True,
        task_publish_retry=False,
        task_routes={DELIVER: {"queue": DELIVERIES}},
        task_serializer="json",
        worker_disable_prefetch=True,  # a busy worker must not sit on a ring that an idle one could answer
        worker_prefetch_multiplier=1,
        worker_send_task_events=False,
    )
    return application


celery_app = make_celery(WorkerSettings().redis_url)
