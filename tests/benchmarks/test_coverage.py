"""The coverage benchmark's short form: real models of two families, exported, pruned and proved."""

import json

import pytest

from benchmarks import coverage, coverage_report, zoo

MODELS = ["torchvision/shufflenet_v2_x0_5", "timm/lcnet_050"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The results file of a run over MODELS, with every column that is ours."""
    folder = tmp_path_factory.mktemp("coverage")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(zoo.CACHE_VARIABLE, str(folder / "exports"))
        file = folder / "coverage.json"
        assert coverage.main(["--models", *MODELS, "--only", "ours*", "--results", str(file)]) == 0
        yield file


@pytest.mark.parametrize("model", MODELS)
def test_half_of_the_prunable_channels_go_and_the_proof_holds(measured, model):
    row = json.loads(measured.read_text())["rows"][model]
    assert {column: cell["status"] for column, cell in row.items()} == dict.fromkeys(row, "pruned")
    assert set(row) == {"ours", "ours_runtime_pass", "ours_inexact"}
    assert row["ours"]["proof_error"] <= 1e-4
    assert row["ours"]["compared_tensors"] > 10
    assert row["ours"]["macs_ratio"] < 0.4
    assert row["ours"]["peak_bytes"] < 3 * row["ours"]["model_bytes"] + 500e6


def test_a_second_run_measures_nothing_that_is_there(measured):
    before = json.loads(measured.read_text())["rows"]
    coverage.main(["--models", *MODELS, "--only", "ours*", "--results", str(measured)])
    assert json.loads(measured.read_text())["rows"] == before


def test_a_pruner_that_fails_leaves_its_error_in_the_row(tmp_path, monkeypatch):
    monkeypatch.setenv(zoo.CACHE_VARIABLE, str(tmp_path))
    zoo.find("timm/lcnet_050").onnx_file.write_bytes(b"no model")
    file = tmp_path / "coverage.json"
    coverage.main(["--models", "timm/lcnet_050", "--only", "ours", "--results", str(file)])
    cell = json.loads(file.read_text())["rows"]["timm/lcnet_050"]["ours"]
    assert cell["status"] == "failed"
    assert "cannot be read as an ONNX model" in cell["error"]


def test_no_claim_about_all_models_holds_before_all_are_measured(measured):
    rows = json.loads(measured.read_text())["rows"]
    verdicts = {claim.name: claim for claim in coverage_report.claims(rows)}
    assert not verdicts["largest error of a proof"].holds
    assert "; 0 of 2 beyond the goal" in verdicts["largest error of a proof"].value
    assert not any(claim.holds for name, claim in verdicts.items() if "proved to 1e-4" in name)


def test_the_list_names_every_classification_and_segmentation_model_of_torchvision():
    import torchvision

    listed = {library: {e.model for e in zoo.entries() if e.library == library} for library in ("torchvision", "timm")}
    assert listed["torchvision"] == set(torchvision.models.list_models(module=torchvision.models))
    assert len(listed["timm"]) == 86
