"""The templates of the reports, with the filters that they use."""

from functools import cache
from pathlib import Path
from statistics import median

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from worker.runner.html_report import formats, plots

_FILTERS = (
    "quantity",
    "size",
    "exact",
    "percent",
    "points",
    "milliseconds",
    "times",
    "seconds",
    "error",
    "shorten",
    "significant",
)


@cache
def environment() -> Environment:
    """Everything that a template is given is escaped."""
    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals.update(ratio=formats.ratio, significant=formats.significant, wilson=plots.wilson)
    found.filters.update({name: getattr(formats, name) for name in _FILTERS} | {"median": median})
    return found
