"""How documents name methods of the catalogue: a field per kind, and one beside it for the options.

A document that lets its user choose derives from ChoosesMethods and has two fields per kind, in this order:

    criterion: Annotated[str, InCatalogue("criterion")] = "l2"
    criterion_options: MethodOptions = DEFAULTS
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from pydantic import (
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    JsonValue,
    ValidationError,
    field_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema
from pydantic_core.core_schema import ValidationInfo

from models_store import catalogue
from models_store.documents.base import Document
from models_store.documents.recorded import is_recorded

_SUFFIX = "_options"

_OptionName: TypeAlias = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""The pattern keeps out what is no text, too, which no answer could name."""
MethodOptions: TypeAlias = Annotated[
    dict[_OptionName, JsonValue],
    Field(description="Of the method named above it; `GET /v1/methods` has their schema.", max_length=100),
]
DEFAULTS: Any = Field(default={}, validate_default=True)

Place: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True)
class InCatalogue:
    """A string that must name a method of this kind."""

    kind: str

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._known, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "enum": catalogue.names(self.kind)}

    def _known(self, name: str) -> str:
        catalogue.find(self.kind, name)
        return name


class ChoosesMethods(Document):
    """Base of documents with fields for methods: their options are checked, and every default is spelt out."""

    model_config = ConfigDict(allow_inf_nan=False)  # no bound of a JSON schema keeps NaN out

    @field_validator("*", mode="after")
    @classmethod
    def _check_options(cls, value: object, info: ValidationInfo) -> object:
        kind = (info.field_name or "").removesuffix(_SUFFIX)
        name = info.data.get(kind) if kind != info.field_name else None
        if name is None or not isinstance(value, dict) or is_recorded():
            return value
        method = catalogue.find(kind, name)
        refuse(((place, message) for place, message in method.faults(value)), "bad_option")
        return method.with_defaults(value)

    def methods(self) -> dict[str, catalogue.Method]:
        """The methods chosen, by the fields that name them."""
        fields = type(self).model_fields
        kinds = [field for field in fields if f"{field}{_SUFFIX}" in fields]
        return {kind: catalogue.find(kind, getattr(self, kind)) for kind in kinds if getattr(self, kind) is not None}


def refuse(faults: Iterable[tuple[Place, str]], code: str) -> None:
    """Raises the ValidationError that puts each sentence at its place; nothing where there is none."""
    errors = [
        InitErrorDetails(type=PydanticCustomError(code, "{sentence}", {"sentence": sentence}), loc=place, input=None)
        for place, sentence in faults
    ]
    if errors:
        raise ValidationError.from_exception_data(code, errors)
