"""The report of any kind of job."""

from collections.abc import Mapping
from typing import Annotated, TypeAlias

from pydantic import Discriminator, Tag, TypeAdapter

from models_store.documents.estimate_report import EstimateReport
from models_store.documents.mask_part import MaskScores
from models_store.documents.report import Report
from models_store.documents.sweep_report import SweepReport

AnyReport: TypeAlias = Report | EstimateReport | SweepReport | MaskScores


def _kind_of(document: object) -> str:
    return str(document.get("kind", "prune") if isinstance(document, Mapping) else getattr(document, "kind", ""))


ReportOfAnyKind: TypeAlias = Annotated[
    Annotated[Report, Tag("prune")]
    | Annotated[EstimateReport, Tag("estimate")]
    | Annotated[SweepReport, Tag("sweep")]
    | Annotated[MaskScores, Tag("masks")],
    Discriminator(_kind_of),
]
"""As it is stored and sent; one without a `kind` is that of a prune job."""

ANY_REPORT: TypeAdapter[AnyReport] = TypeAdapter(ReportOfAnyKind)
