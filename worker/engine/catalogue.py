"""Print the catalogue of all methods as JSON: `make catalogue` keeps it in models_store/catalogue.json."""

from __future__ import annotations

import json
from typing import Any

from worker.engine.allocation import ALLOCATIONS
from worker.engine.criteria import CRITERIA
from worker.engine.kernels import GRANULARITIES
from worker.engine.methods import Registry
from worker.engine.recovery import RECOVERIES

REGISTRIES: tuple[Registry[Any], ...] = (CRITERIA, ALLOCATIONS, GRANULARITIES, RECOVERIES)
"""One per kind of method, in the order in which a user chooses."""


def catalogue() -> str:
    """Every method of every kind, as the JSON text that is committed."""
    methods = [method.entry() for registry in REGISTRIES for method in registry]
    return json.dumps({"version": 1, "methods": methods}, indent=2) + "\n"


if __name__ == "__main__":
    print(catalogue(), end="")
