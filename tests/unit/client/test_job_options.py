"""What the commands that start jobs let their users choose."""

import inspect

import pytest
import typer

from espalier import cli, job_options
from espalier.job_form import ANY_DATASET, InvalidJob, fill
from models_store.documents.job_spec import Budget, JobSpec


@pytest.mark.parametrize("command", [cli.prune, cli.estimate])
def test_every_line_of_a_budget_is_an_option(command):
    lines = set(Budget.model_fields) - ({"max_accuracy_drop"} if command is cli.estimate else set())
    assert lines <= set(inspect.signature(command).parameters)


def test_budget_and_methods_become_the_body_of_a_job():
    lines = job_options.budget(
        macs_ratio=None,
        params_ratio=0.6,
        size_bytes=60_000,
        latency_ratio=0.5,
        latency_ms=2.5,
        latency_batch_size=8,
        latency_threads=2,
        max_accuracy_drop=0.01,
    )
    methods = job_options.pruning(
        criterion="l1",
        criterion_options=["aggregation=max"],
        allocation="tpe",
        allocation_options=["evaluations=20", "images=64"],
        round_to=4,
    )
    spec = fill(None, {"budget": lines, "pruning": methods, "dataset_id": ANY_DATASET})
    assert isinstance(spec, JobSpec)
    assert spec.budget.lines() == {
        "params_ratio": 0.6,
        "size_bytes": 60_000,
        "latency_ratio": 0.5,
        "latency_ms": 2.5,
        "max_accuracy_drop": 0.01,
    }
    assert (spec.budget.latency_batch_size, spec.budget.latency_threads) == (8, 2)
    assert spec.pruning.criterion_options["aggregation"] == "max"
    assert spec.pruning.allocation_options == {"evaluations": 20, "images": 64, "calibration_images": 128}
    assert spec.pruning.round_to == 4


def test_an_option_that_a_method_does_not_have_is_named():
    methods = job_options.pruning(
        criterion=None,
        criterion_options=None,
        allocation="uniform",
        allocation_options=["evaluations=20"],
        round_to=None,
    )
    with pytest.raises(InvalidJob, match="has no option 'evaluations'"):
        fill(None, {"budget": {"macs_ratio": 0.5}, "pruning": methods})


def test_a_search_without_a_dataset_is_refused_with_what_to_choose_instead():
    with pytest.raises(InvalidJob, match=r"needs labels, and the job has no dataset; .* one of: .*uniform"):
        fill(None, {"budget": {"macs_ratio": 0.5}, "pruning": {"allocation": "cma_es"}})


def test_lists_of_numbers_are_read():
    assert job_options.numbers("0.7,0.5") == [0.7, 0.5]
    with pytest.raises(typer.BadParameter, match="is not a list of numbers"):
        job_options.numbers("half")
