"""What a job asks of kernels: zeros inside the weights of convolutions, beside or instead of whole channels."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from models_store.documents.base import Document
from models_store.documents.recorded import asked_for

_OPTIONS = {"blocks": "grouped", "patterns": "pattern"}
_N_OF_FOUR = (0.25, 0.5, 0.75)


class Kernels(Document):
    """Which weights inside the convolutions go, after the channels. A kernel is the 2-D slice of a filter that reads
    one input channel."""

    layout: Literal["grouped", "free", "pattern", "strided", "n_m"] = Field(
        default="grouped",
        description="grouped: each block of output channels reads its own subset of the input channels, exported as "
        "Gather and a Conv with `group`, which is faster anywhere. The others are zeros in dense weights, which no "
        "dense runtime gains from. free: whole kernels anywhere; pattern: a few shapes of weights for all kernels of a "
        "layer; strided: every s-th weight of a kernel, the offset chosen per input channel; n_m: N of 4 neighbouring "
        "input channels (2:4 at sparsity 0.5).",
    )
    sparsity: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.5, description="Share of the kernels (or of the weights in a kernel) that goes in every convolution."
    )
    criterion: Literal["l1", "l2"] = Field(default="l2", description="Importance of a kernel or weight.")
    blocks: int = Field(default=4, ge=2, le=64, description="grouped: blocks of output channels, where they divide.")
    patterns: int = Field(default=8, ge=1, le=64, description="pattern: shapes in the library of a layer.")

    @model_validator(mode="after")
    def _each_option_has_its_layout(self) -> Self:
        for option, layout in _OPTIONS.items():
            if asked_for(self, option) and self.layout != layout:
                raise ValueError(f"kernels.{option} is about layout {layout}: choose that, or leave {option} out")
        return self

    @model_validator(mode="after")
    def _sparsity_fits_the_layout(self) -> "Kernels":
        if self.layout == "n_m" and self.sparsity not in _N_OF_FOUR:
            raise ValueError("n_m keeps 3, 2 or 1 of 4: kernels.sparsity is one of 0.25, 0.5, 0.75")
        kept = 1 / (1 - self.sparsity)
        if self.layout == "strided" and (round(kept) < 2 or abs(kept - round(kept)) > 0.02):
            raise ValueError("strided keeps one weight in 2, 3, 4, ...: kernels.sparsity is 0.5, 0.667, 0.75, ...")
        return self
