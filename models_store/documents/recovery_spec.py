"""What a job asks for before the cut, and between cut and finetuning."""

from typing import Literal, Self

from pydantic import Field, model_validator

from models_store.catalogue import Method, find
from models_store.documents.base import Document
from models_store.documents.recorded import asked_for


class Recovery(Document):
    """What is done with the cut model before it is finetuned, on training images whose labels play no part."""

    bn_reestimation: bool | None = Field(
        default=None,
        description="Take the means and variances of every BatchNormalization anew on the calibration images. Left "
        "out: done where the job has images.",
    )
    reconstruction: bool | None = Field(
        default=None,
        description="Refit the weights that remain, layer by layer in closed form, to what the original computes on "
        "the calibration images (least squares); norms are re-estimated on the way. Left out: done where the job has "
        "images, unless it removes kernels, too.",
    )
    calibration_images: int = Field(
        default=1024, ge=2, le=100_000, description="At most; large activations leave room for fewer."
    )

    @property
    def reestimates(self) -> bool:
        """Whether norms are to be taken anew where there are images."""
        return self.bn_reestimation is not False

    def methods(self) -> list[Method]:
        """Those that were asked for, not only left to the job."""
        asked_for = {"bn_reestimation": self.bn_reestimation, "reconstruction": self.reconstruction}
        return [find("recovery", name) for name, wanted in asked_for.items() if wanted]


class Regularisation(Document):
    """Training of the whole network before the cut, in which a growing decay makes the weights vanish that will go.
    Optimiser, learning rate, batches and augmentation are those of the finetuning."""

    method: Literal["swd", "greg"] = Field(
        default="swd",
        description="swd: the decay grows exponentially (Tessier et al. 2022); greg: in even steps (Wang et al. 2021).",
    )
    epochs: int = Field(default=1, ge=1, le=1000)
    first: float = Field(default=1e-3, gt=0, le=1e4, description="swd: the decay at the beginning.")
    last: float = Field(default=1.0, gt=0, le=1e4, description="The decay at the end.")

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.method == "swd" and self.last < self.first:
            raise ValueError("regularisation.last must not be below regularisation.first")
        if self.method == "greg" and asked_for(self, "first"):
            raise ValueError("regularisation.first is about swd, greg begins at 0: choose swd, or leave first out")
        return self
