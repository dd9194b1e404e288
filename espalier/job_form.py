"""A job's body out of a file and the command line's options."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from espalier.errors import EspalierError
from espalier.json_files import read_object
from models_store.documents.faults import sentences
from models_store.documents.job_spec import NEW_JOB, AnySpec

ANY_MODEL = f"mdl_{0:032x}"
ANY_DATASET = f"dst_{0:032x}"
_GIVEN_BY: dict[tuple[int | str, ...], str] = {
    ("budget",): "--macs-ratio 0.5 or --latency-ratio 0.5",
    ("budgets",): "--macs-ratios 0.7,0.5,0.3",
}


class InvalidJob(EspalierError):
    """The body of a job would be refused."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("invalid_job", "; ".join(faults), "`espalier COMMAND --help` and /docs list what can be set.")


def fill(file: Path | None, options: Mapping[str, Any], kind: str = "prune") -> AnySpec:
    """The spec of a kind of job with `options` (None: not given) on top of the file's; model and dataset come later.

    Checked before anything is uploaded. Raises InvalidJob.
    """
    body = {**({} if kind == "prune" else {"kind": kind}), "model_id": ANY_MODEL, **_read(file)}
    if body.get("kind", "prune") != kind:
        raise InvalidJob(
            [f"kind: {file} describes a job of kind {body['kind']}, and this command starts one of kind {kind}"]
        )
    try:
        return NEW_JOB.validate_json(json.dumps(_merged(body, options)))
    except ValidationError as error:
        raise InvalidJob(sentences(map(_by_option, error.errors()))) from error


def _by_option(fault: ErrorDetails) -> dict[str, Any]:
    """The fault without the kind of job, which chose the schema and is no part of the body's places; where a budget is
    missing, with the option that gives it."""
    place = fault["loc"][1:]
    option = _GIVEN_BY.get(place) if fault["type"] == "missing" else None
    return {"loc": place, "msg": f"say what may remain, such as {option}" if option else fault["msg"]}


def _read(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        return read_object(file)
    except ValueError as error:
        raise InvalidJob([f"{file}: {error}"]) from error


def _merged(body: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(body)
    for name, value in options.items():
        if isinstance(value, Mapping):
            beneath = result.get(name)
            inner = _merged(beneath if isinstance(beneath, Mapping) else {}, value)
            if inner:
                result[name] = inner
        elif value is not None:
            result[name] = value
    return result
