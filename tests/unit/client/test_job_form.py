"""A job's body from a file and options."""

import json

import pytest
import typer

from espalier.job_form import ANY_DATASET, InvalidJob, fill
from espalier.job_options import named_values
from espalier.pipeline_commands import InvalidPipeline, add


def test_options_come_on_top_of_the_file(tmp_path):
    file = tmp_path / "job.json"
    file.write_text(json.dumps({"budget": {"macs_ratio": 0.5}, "finetuning": {"epochs": 7, "momentum": 0.8}}))
    spec = fill(file, {"budget": {"macs_ratio": 0.4}, "finetuning": {"epochs": None}, "seed": 3, "label": None})
    assert (spec.budget.macs_ratio, spec.finetuning.epochs, spec.finetuning.momentum) == (0.4, 7, 0.8)
    assert (spec.seed, spec.label) == (3, None)


def test_what_nobody_gave_is_left_to_the_service():
    spec = fill(None, {"budget": {"macs_ratio": 0.4}, "pruning": {"criterion": None}})
    assert spec.model_fields_set == {"model_id", "budget"}


def test_a_file_of_another_kind_of_job_is_refused(tmp_path):
    file = tmp_path / "job.json"
    file.write_text(json.dumps({"kind": "estimate"}))
    assert fill(file, {}, "estimate").kind == "estimate"
    with pytest.raises(InvalidJob, match="of kind prune"):
        fill(file, {"budget": {"macs_ratio": 0.5}})


def test_values_of_options_are_numbers_where_they_look_like_it():
    given = named_values(["evaluations=20", "scale=0.5", "rule=otsu", "greedy=false"])
    assert given == {"evaluations": 20, "scale": 0.5, "rule": "otsu", "greedy": False}
    with pytest.raises(typer.BadParameter, match="NAME=VALUE"):
        named_values(["otsu"])


def test_methods_that_need_data_are_checked_as_if_it_were_uploaded():
    options = {"budget": {"macs_ratio": 0.5}, "random_masks": {"granularity": None, "count": 20}}
    spec = fill(None, {**options, "dataset_id": ANY_DATASET})
    assert spec.random_masks is not None
    assert (spec.random_masks.granularity, spec.random_masks.count) == ("feature_map", 20)
    with pytest.raises(InvalidJob, match="the job needs a dataset_id"):
        fill(None, {**options, "dataset_id": None})


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({}, "budget"),
        ({"budget": {"macs_ratio": 0}}, "budget.macs_ratio"),
        ({"budget": {"macs_ratio": 2}}, "budget.macs_ratio"),
        ({"budget": {"macs_ratio": 0.5}, "pruning": {"criterion": "best"}}, "pruning.criterion"),
        ({"budget": {"macs_ratio": 0.5}, "data": {"mean": [0, 0, 0]}}, "mean and data.std"),
    ],
)
def test_a_wrong_value_is_named_before_anything_is_sent(options, place):
    with pytest.raises(InvalidJob, match=place) as refusal:
        fill(None, options)
    assert "Value error" not in str(refusal.value)


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"budget": 3}', '{"budgets": {}}'])
def test_a_wrong_file_is_an_error_of_the_user(tmp_path, text):
    file = tmp_path / "job.json"
    file.write_text(text)
    with pytest.raises(InvalidJob):
        fill(file, {"budget": {"macs_ratio": None}})


@pytest.mark.parametrize("depth", [300, 2000, 100_000])
def test_a_file_that_is_nested_too_deeply_is_refused(tmp_path, depth):
    file = tmp_path / "deep.json"
    file.write_text('{"budget":' + "[" * depth + "]" * depth + "}")
    with pytest.raises(InvalidJob, match=r"deep\.json: nested too deeply at line 1 column"):
        fill(file, {})
    with pytest.raises(InvalidPipeline, match="nested too deeply"):
        add(file)


@pytest.mark.parametrize(
    ("kind", "option"), [("prune", "budget: .* --macs-ratio 0.5"), ("sweep", "budgets: .* --macs-ratios 0.7,0.5,0.3")]
)
def test_a_budget_that_is_missing_is_asked_for_by_its_option(kind, option):
    with pytest.raises(InvalidJob, match=option):
        fill(None, {"dataset_id": ANY_DATASET}, kind)
