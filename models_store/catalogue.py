"""The methods that jobs may name, as the engine declares them; catalogue.json is written by `make catalogue`.

The planes that carry no engine read it here: to list the methods, and to refuse a job that names what is not there.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

from jsonschema import Draft202012Validator
from pydantic import Field

from models_store.documents.base import Document

FILE = Path(__file__).with_suffix(".json")


class Kind(StrEnum):
    """What methods there are, in the order in which a job comes to them."""

    CRITERION = "criterion"
    ALLOCATION = "allocation"
    GRANULARITY = "granularity"
    RECOVERY = "recovery"


class OnlyWith(Document):
    """The methods of another kind that a method works with, where it does not work with all; none: with that kind not
    at all."""

    kind: Kind
    names: tuple[str, ...]
    reason: str


class Method(Document):
    """A criterion, an allocation, …: what a job may name."""

    kind: Kind
    name: str
    title: str
    summary: str
    paper: str = Field(description="Where it comes from; empty where it comes from no paper.")
    cost: str = Field(description="How long it takes, roughly.")
    uses: tuple[str, ...] = Field(description="Weights, activations, gradients, …")
    data: Literal["none", "images", "labels"] = Field(description="What the job's dataset must have.")
    exactness: Literal["published", "adapted", "reconstruction", "own"] = Field(
        description="published: the paper's formula. adapted: its idea, carried over to coupled groups of any graph. "
        "reconstruction: the paper's formula is not public, and this is ours in its place. own: from no paper."
    )
    asked_for_by: str = Field(
        description="The field of a job's body that asks for it. Its options are in the field of that name with "
        "`_options` behind it, or else fields beside it."
    )
    only_with: tuple[OnlyWith, ...] = Field(description="Where it does not work with every method of another kind.")
    options: dict[str, Any] = Field(description="JSON schema of its options, with defaults.")

    def __str__(self) -> str:
        return f"{self.kind} '{self.name}'"

    def with_defaults(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options, every default spelt out. Whole numbers are integers, as JSON knows no difference: 64.0 is 64."""
        known = self.options.get("properties", {})
        defaults = {name: schema["default"] for name, schema in known.items() if "default" in schema}
        whole = {name for name, schema in known.items() if schema.get("type") == "integer"}
        return {**defaults, **{name: int(value) if name in whole else value for name, value in options.items()}}

    def faults(self, options: Mapping[str, Any]) -> list[tuple[tuple[str | int, ...], str]]:
        """What is wrong with the options: a place and a sentence each."""
        known = self.options.get("properties", {})
        unknown = [name for name in options if name not in known]
        allowed = ", ".join(known) or "none"
        found: list[tuple[tuple[str | int, ...], str]] = [
            ((name,), f"{self} has no option '{name}'; its options are: {allowed}") for name in unknown
        ]
        errors = self._validator.iter_errors({name: value for name, value in options.items() if name in known})
        # A rule between options says in its `$comment` what to do, where the validator only knows what it expected.
        told = ((error.absolute_path, error.schema.get("$comment", error.message)) for error in errors)
        return found + [(tuple(place), f"{self}: {message}") for place, message in told]

    @cached_property
    def _validator(self) -> Draft202012Validator:
        return Draft202012Validator(self.options)


class Catalogue(Document):
    """Every method that this version knows."""

    version: Literal[1]
    methods: tuple[Method, ...]

    def of_kind(self, kind: str) -> dict[str, Method]:
        return {method.name: method for method in self.methods if method.kind == kind}


@cache
def catalogue() -> Catalogue:
    return Catalogue.model_validate_json(FILE.read_bytes())


def names(kind: str) -> list[str]:
    """What a job may call a method of this kind."""
    return list(catalogue().of_kind(kind))


def find(kind: str, name: str) -> Method:
    """Raises ValueError that names what there is."""
    methods = catalogue().of_kind(kind)
    if name not in methods:
        raise ValueError(f"there is no {kind} '{name}'; choose one of: {', '.join(methods)}")
    return methods[name]


def conflicts(chosen: Iterable[Method], data: Literal["none", "images", "labels"]) -> list[tuple[Method, str]]:
    """Why the chosen methods do not work with each other or with the data that are there: method and sentence."""
    chosen = list(chosen)
    found = []
    for method in chosen:
        if not _suffices(data, method.data):
            alternatives = [m.name for m in catalogue().of_kind(method.kind).values() if _suffices(data, m.data)]
            lack = "no labels" if data == "images" else "no dataset"
            found.append((method, f"{method} needs {method.data}, and the job has {lack}{_instead(alternatives)}"))
        for rule in method.only_with:
            others = [m for m in chosen if m.kind == rule.kind and m.name not in rule.names]
            wanted = f"works with {rule.kind} {' or '.join(rule.names)} only, not" if rule.names else "does not go with"
            found += [(method, f"{method} {wanted} {m.name if rule.names else m}: {rule.reason}") for m in others]
    return found


def _suffices(data: str, needed: str) -> bool:
    order = ("none", "images", "labels")
    return order.index(data) >= order.index(needed)


def _instead(names: list[str]) -> str:
    return f"; without, choose one of: {', '.join(names)}" if names else ""
