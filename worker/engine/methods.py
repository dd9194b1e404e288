"""How a method (criterion, allocation, …) describes itself: to the engine that runs it and to the users' catalogue.

A method is declared where it is implemented, in one file of its kind's package; the package's registry imports every
file and so finds it. `make catalogue` writes what the registries hold to models_store/catalogue.json, from which the
API serves `GET /v1/methods` and checks jobs.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from worker.engine.errors import EngineError

Signal = Literal["weights", "activations", "gradients", "accuracy", "latency"]
Data = Literal["none", "images", "labels"]
Exactness = Literal["published", "adapted", "reconstruction", "own"]
"""published: the source's formula; adapted: its idea carried over to coupled groups of any graph; reconstruction: the
source's formula is not public and this is ours in its place; own: no paper."""

F = TypeVar("F", bound=Callable[..., Any])
O = TypeVar("O", bound="Options")  # noqa: E741


class Options(BaseModel):
    """Base of a method's options: flat fields with defaults and bounds, each with a description."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class OnlyWith:
    """A method works with these methods of another kind only (with none of them: not with that kind), and why."""

    kind: str
    names: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Method(Generic[F]):
    """A method as its users read about it, and the function that carries it out."""

    kind: str
    name: str
    title: str
    summary: str
    paper: str
    cost: str
    uses: tuple[Signal, ...]
    data: Data
    exactness: Exactness
    options: type[Options]
    only_with: tuple[OnlyWith, ...]
    asked_for_by: str
    function: F

    def read_options(self, given: Mapping[str, Any] | Options | None = None) -> Options:
        """The options with defaults filled in. Raises EngineError for an unknown or a bad one."""
        if isinstance(given, Options):
            return given
        try:
            return self.options.model_validate(dict(given or {}))
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
            raise EngineError(
                "bad_options", f"Options of {self.kind} '{self.name}': {faults}.", "GET /v1/methods lists the options."
            ) from error

    def entry(self) -> dict[str, Any]:
        """What the catalogue says about it, as JSON."""
        return {
            "kind": self.kind,
            "name": self.name,
            "title": self.title,
            "summary": self.summary,
            "paper": self.paper,
            "cost": self.cost,
            "uses": list(self.uses),
            "data": self.data,
            "exactness": self.exactness,
            "asked_for_by": self.asked_for_by,
            "only_with": [{"kind": o.kind, "names": list(o.names), "reason": o.reason} for o in self.only_with],
            "options": self.options.model_json_schema(),
        }


class Registry(Generic[F]):
    """The methods of one kind, by name.

    >>> criteria: Registry[Callable[..., Any]] = Registry("criterion", asked_for_by="pruning.criterion")
    >>> @criteria.register("ones", title="Ones", summary="All alike.", uses=("weights",))
    ... def ones() -> None: ...
    >>> criteria.find("ones").title
    'Ones'
    """

    def __init__(self, kind: str, asked_for_by: str) -> None:
        """`asked_for_by`: the field of a job's body that asks for a method, unless it says so itself."""
        self.kind = kind
        self.asked_for_by = asked_for_by
        self._methods: dict[str, Method[F]] = {}

    def register(
        self,
        name: str,
        *,
        title: str,
        summary: str,
        uses: tuple[Signal, ...],
        paper: str = "",
        cost: str = "seconds",
        data: Data = "none",
        exactness: Exactness = "published",
        options: type[Options] = Options,
        only_with: tuple[OnlyWith, ...] = (),
        asked_for_by: str | None = None,
    ) -> Callable[[F], F]:
        """Declare the decorated function as a method of this kind."""

        def register(function: F) -> F:
            field = asked_for_by or self.asked_for_by
            self._methods[name] = Method(
                self.kind, name, title, summary, paper, cost, uses, data, exactness, options, only_with, field, function
            )
            return function

        return register

    def find(self, name: str) -> Method[F]:
        """Raises EngineError `unknown_<kind>` that names what there is."""
        if name not in self._methods:
            raise EngineError(
                f"unknown_{self.kind}",
                f"There is no {self.kind} '{name}'.",
                f"Choose one of: {', '.join(sorted(self._methods))}.",
            )
        return self._methods[name]

    def load(self, package: str) -> None:
        """Import every module of a package, each of which registers its methods."""
        path = importlib.import_module(package).__path__
        for module in pkgutil.iter_modules(path, f"{package}."):
            importlib.import_module(module.name)

    def __iter__(self) -> Iterator[Method[F]]:
        return iter(sorted(self._methods.values(), key=lambda method: method.name))

    def __contains__(self, name: str) -> bool:
        return name in self._methods


def options_of(options: Options, kind: type[O]) -> O:
    """The options as what a method declared them to be."""
    if not isinstance(options, kind):
        raise TypeError(f"expected {kind.__name__}, got {type(options).__name__}")
    return options
