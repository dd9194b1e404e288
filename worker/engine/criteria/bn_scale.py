"""Scales of BatchNormalization (Liu et al., network slimming, ICCV 2017)."""

from __future__ import annotations

import numpy as np

from worker.engine.criteria.evidence import Evidence
from worker.engine.criteria.registry import CRITERIA, ScoreOptions
from worker.engine.criteria.width import Floats, Width
from worker.engine.errors import EngineError

_SCALE = 1  # input of BatchNormalization


@CRITERIA.register(
    "bn_scale",
    title="BN scale",
    summary="Channels that BatchNormalization scales down most go; best after training with an L1 penalty on the "
    "scales. Channels without BatchNormalization count alike.",
    paper="Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017, arXiv 1708.06519",
    uses=("weights",),
    exactness="adapted",
    options=ScoreOptions,
)
def bn_scale(evidence: Evidence, width: Width, options: ScoreOptions) -> list[Floats]:
    """|gamma| of each BatchNormalization on the units. Raises EngineError for a model without any."""
    analysis = evidence.analysis
    rows = []
    nodes = [i for i, node in enumerate(analysis.graph.nodes) if node.op_type == "BatchNormalization"]
    if not nodes:
        raise EngineError(
            "no_batch_normalization",
            "Criterion 'bn_scale' needs BatchNormalization, and the model has none.",
            "Export the model without folding it into the convolutions, or choose another criterion.",
        )
    for slot in analysis.propagation.slots:
        name, node, position = slot
        if node in nodes and position == _SCALE:
            (labels,) = analysis.propagation.slot_dims(slot)
            if labels is not None and (width.positions(labels) >= 0).any():
                scale = np.abs(analysis.graph.array(name).astype(np.float64))
                found = width.per_unit(labels, np.ones(len(labels)))
                rows.append(np.where(found > 0, width.per_unit(labels, scale), np.nan))
    return rows
