"""Measuring models: accuracy, fidelity to the original, latency, memory, and the machine it happened on."""

from worker.engine.measure.accuracy import Evaluation, evaluate
from worker.engine.measure.classifier import Head, find_head, possible_heads
from worker.engine.measure.fidelity import Fidelity, fidelity
from worker.engine.measure.machine import Machine, machine
from worker.engine.measure.memory import peak_memory
from worker.engine.measure.speed import Latency, Percentiles, latency

__all__ = [
    "Evaluation",
    "Fidelity",
    "Head",
    "Latency",
    "Machine",
    "Percentiles",
    "evaluate",
    "fidelity",
    "find_head",
    "latency",
    "machine",
    "peak_memory",
    "possible_heads",
]
