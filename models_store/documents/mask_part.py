"""Random masks of one job, scored by several workers: what a part is told, and what it answers."""

from typing import Annotated, Literal

from pydantic import Field

from models_store.documents.base import Document
from models_store.documents.report import Artifact

Granularity = Literal["feature_map", "kernel"]
MAX_PARTS = 256


class MaskDraws(Document):
    """What is drawn for the whole network. Left in the state of the job, where its parts find it, too."""

    granularity: Granularity
    kept: tuple[int, ...] = Field(description="Units that stay of each group; of kernels, none.")
    model_sha256: str = Field(description="Of the network whose channels or kernels are drawn.")


class MaskPart(Document):
    """Some of the masks, by their numbers: the spec of a job of kind `masks`."""

    kind: Literal["masks"] = "masks"
    granularity: Granularity
    draws: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the job's MaskDraws.")
    first: int = Field(ge=0)
    last: int = Field(ge=1, description="The first that does not belong to it.")


class MaskParts(Document):
    """What a job asks its supervisor for: each part scored by some worker, then another attempt of its own."""

    stage: str
    parts: Annotated[tuple[MaskPart, ...], Field(min_length=1, max_length=MAX_PARTS)]


class MaskScores(Document):
    """The report of a part."""

    version: Literal[1] = 1
    kind: Literal["masks"] = "masks"
    part: MaskPart
    wrong: tuple[int, ...] = Field(description="Validation images that each mask misclassifies, in their order.")
    samples: int
    seconds: float
    artifacts: tuple[Artifact, ...] = ()
