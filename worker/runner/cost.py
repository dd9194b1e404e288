"""What a model costs, as the report has it."""

from pathlib import Path

from models_store.documents.report import Cost


def cost(macs: int, params: int, path: Path) -> Cost:
    return Cost(params=params, macs=macs, flops=2 * macs, size_bytes=path.stat().st_size)
