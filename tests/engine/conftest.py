"""The digits network, trained for an epoch, and its images."""

from __future__ import annotations

from pathlib import Path

import pytest

from espalier.demo_network import digits, export, train
from worker.engine.data import Dataset, InputSpec, open_dataset
from worker.engine.graph import Analysis, analyze, load_model


@pytest.fixture(scope="session")
def digits_analysis(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    path: Path = tmp_path_factory.mktemp("digits") / "digits.onnx"
    export(train(digits(), epochs=2), path)
    return analyze(load_model(path))


@pytest.fixture(scope="session")
def digits_dataset(digits_analysis: Analysis, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("digits") / "digits.npz"
    digits().save(path)
    return open_dataset(path, InputSpec.of(digits_analysis.graph.model))
