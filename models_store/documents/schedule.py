"""Pruning in rounds: a little at a time, with training in between."""

from typing import Literal

from pydantic import Field

from models_store.documents.base import Document


class Schedule(Document):
    """Rounds of scoring, cutting, recovery and finetuning, on the way to the budget. Scores are taken anew in each."""

    steps: int = Field(default=3, ge=2, le=50, description="Rounds; the last one ends at the budget.")
    path: Literal["geometric", "linear"] = Field(
        default="geometric",
        description="geometric: every round keeps the same share of what the one before it left; linear: every round "
        "takes the same amount.",
    )
    epochs: int = Field(
        default=1, ge=1, le=1000, description="Of finetuning in each round but the last, which has finetuning.epochs."
    )
