"""What a cut would do to a network, seen without making it: masks over its torch form."""

from worker.engine.probe.images import Images, some_images, some_noise
from worker.engine.probe.objective import Objective, Value
from worker.engine.probe.response import Probe, Response
from worker.engine.probe.sensitivity import Sensitivity, importance_lost, measure_sensitivity

__all__ = [
    "Images",
    "Objective",
    "Probe",
    "Response",
    "Sensitivity",
    "Value",
    "importance_lost",
    "measure_sensitivity",
    "some_images",
    "some_noise",
]
