"""The Upload-Metadata header: what the sender says about a file, and so what becomes of it."""

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Literal

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from app import names
from app.datasets.schemas import DatasetForm
from app.models.schemas import ModelForm

HEADER = "Upload-Metadata"
PATTERN = r"^[\x21-\x2b\x2d-\x7e]+( [A-Za-z0-9+/=]*)?( *, *[\x21-\x2b\x2d-\x7e]+( [A-Za-z0-9+/=]*)?)*$"
MAX_LENGTH = 4096
NEXT_TO_A_FILE = frozenset({"filename", "filetype", "type", "relativePath"})  # what usual clients add by themselves

Kind = Literal["model", "dataset"]
FORMS: dict[Kind, type[ModelForm] | type[DatasetForm]] = {"model": ModelForm, "dataset": DatasetForm}


@dataclass(frozen=True)
class Purpose:
    """What an upload is to become."""

    kind: Kind
    name: str
    form: ModelForm | DatasetForm


def read(header: str) -> Purpose:
    """Raises RequestValidationError that names the pair which is wrong or missing."""
    pairs = _pairs(header)
    said = pairs.pop("kind", None)
    kind = next((known for known in FORMS if known == said), None)
    if kind is None:
        raise _fault("kind", "`model` or `dataset`: say what the file is, such as `kind bW9kZWw=`", said)
    filename = pairs.get("filename", "")
    fields = {key: value for key, value in pairs.items() if key not in NEXT_TO_A_FILE}
    try:
        form = FORMS[kind].model_validate(fields)
    except ValidationError as error:
        faults = [{**fault, "loc": ("header", HEADER, *fault["loc"])} for fault in error.errors(include_url=False)]
        raise RequestValidationError(faults) from error
    return Purpose(kind, form.name or names.from_filename(filename, kind), form)


def _pairs(header: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in re.split(r" *, *", header.strip()):
        key, _, value = pair.partition(" ")
        try:
            found[key] = base64.b64decode(value, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise _fault(key, "not UTF-8 text in Base64", value) from error
    return {key: value for key, value in found.items() if value}


def _fault(key: str, message: str, value: object) -> RequestValidationError:
    return RequestValidationError(
        [{"type": "value_error", "loc": ("header", HEADER, key), "msg": message, "input": value}]
    )
