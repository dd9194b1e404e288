"""What a job asks of random masks: the best of many draws instead of the most important channels or kernels."""

from typing import Literal, Self

from pydantic import Field, model_validator

from models_store.documents.base import Document
from models_store.documents.recorded import asked_for


class RandomMasks(Document):
    """Which channels or kernels go is drawn at random, with exact counts in every layer; of `count` draws the one that
    misclassifies least before any training is kept (Anwar and Sung, arXiv 1610.09639)."""

    granularity: Literal["feature_map", "kernel", "both"] = Field(
        default="feature_map",
        description="feature_map: channels, as many of each layer as the allocation keeps; kernel: kernels, at the "
        "sparsity of `kernels`, whose layout is free; both: channels first, then kernels.",
    )
    count: int = Field(default=100, ge=1, le=10_000, description="Masks drawn for the whole network.")
    family: int = Field(
        default=10,
        ge=1,
        le=1000,
        description="So many masks in a row have the first half of the network (by MACs) in common, which is then "
        "computed once for all of them. 1 draws every mask by itself, as in the paper, and takes longer.",
    )
    samples: int | None = Field(
        default=None, ge=1, description="Validation images that score a mask; all of them where left out."
    )
    bn_reestimation: bool = Field(
        default=False,
        description="Take the means and variances of every BatchNormalization anew for each mask before it is scored.",
    )
    calibration_images: int = Field(
        default=256, ge=2, le=100_000, description="Training images for that, at most; large ones leave room for fewer."
    )

    @model_validator(mode="after")
    def _calibration_has_its_norms(self) -> Self:
        if asked_for(self, "calibration_images") and not self.bn_reestimation:
            raise ValueError(
                "random_masks.calibration_images are for bn_reestimation: set that to true, or leave them out"
            )
        return self

    @property
    def of_channels(self) -> bool:
        return self.granularity in ("feature_map", "both")

    @property
    def of_kernels(self) -> bool:
        return self.granularity in ("kernel", "both")
