"""The registry of op rules. A rule turns one ONNX node into torch calls; adding an op is adding one rule.

Rules live in the modules of `rules/`, which are all found and imported here.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import TypeAlias

from torch import fx

from worker.engine.torch_form.operation import Operation, Value

Result: TypeAlias = Value | tuple[Value | None, ...]
Rule: TypeAlias = Callable[[Operation], Result]
PythonRule: TypeAlias = Callable[[Operation], fx.Node | None]

RULES: dict[str, Rule] = {}
PYTHON_RULES: dict[str, PythonRule] = {}


def implements(*ops: str) -> Callable[[Rule], Rule]:
    """Register the rule of ONNX ops on tensors."""

    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(ops, rule))
        return rule

    return register


def implements_on_python_values(*ops: str) -> Callable[[PythonRule], PythonRule]:
    """Register the rule of ONNX ops whose inputs are all constants or Python values; None: take the rule on tensors."""

    def register(rule: PythonRule) -> PythonRule:
        PYTHON_RULES.update(dict.fromkeys(ops, rule))
        return rule

    return register


def load_rules() -> None:
    """Import every module of `rules/`."""
    from worker.engine.torch_form import rules

    for module in pkgutil.iter_modules(rules.__path__, f"{rules.__name__}."):
        importlib.import_module(module.name)
