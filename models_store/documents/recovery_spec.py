"""What a job asks for between cut and finetuning."""

from pydantic import Field

from models_store.documents.base import Document


class Recovery(Document):
    """What is done with the cut model before it is finetuned, on training images whose labels play no part."""

    bn_reestimation: bool = Field(
        default=True,
        description="Take the means and variances of every BatchNormalization anew on the calibration images.",
    )
    reconstruction: bool | None = Field(
        default=None,
        description="Refit the weights that remain, layer by layer in closed form, to what the original computes on "
        "the calibration images (least squares); norms are re-estimated on the way. Left out: done, unless the job "
        "removes kernels, too.",
    )
    calibration_images: int = Field(
        default=1024, ge=2, le=100_000, description="At most; large activations leave room for fewer."
    )
