"""What a job asks for in vain is refused; the same documents with every default written out are not."""

import json
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from models_store.documents.export_spec import Export
from models_store.documents.job_spec import ACCEPTED_JOB, NEW_JOB, EstimateSpec, JobSpec
from models_store.documents.sweep_report import SweepReport
from tests.sweep_reports import sweep_report
from worker.order import Order

BODY = {"model_id": "mdl_" + "0" * 32, "dataset_id": "dst_" + "0" * 32, "budget": {"macs_ratio": 0.5}}
SWEEP = {"kind": "sweep", "model_id": BODY["model_id"], "dataset_id": BODY["dataset_id"]}


def fault(body: dict[str, Any]) -> tuple[str, str]:
    with pytest.raises(ValidationError) as refused:
        NEW_JOB.validate_python(body)
    (found,) = refused.value.errors()
    return ".".join(map(str, found["loc"])), found["msg"]


@pytest.mark.parametrize(
    ("option", "value", "file"),
    [("float16_io", True, "float16"), ("int8_full_range", True, "int8"), ("int8_calibration_images", 64, "int8")],
)
def test_an_option_of_a_file_that_is_not_exported(option: str, value: object, file: str) -> None:
    place, message = fault({**BODY, "export": {option: value}})
    assert place == "prune.export"
    assert f"export.{option} is about export.{file}: set that to true" in message
    NEW_JOB.validate_python({**BODY, "export": {option: value, file: True}})


@pytest.mark.parametrize(
    ("field", "idle", "remedy"),
    [
        ("kernels", {"layout": "free", "blocks": 8}, {"layout": "grouped"}),
        ("kernels", {"layout": "grouped", "patterns": 4}, {"layout": "pattern"}),
        ("regularisation", {"method": "greg", "first": 0.1}, {"method": "swd"}),
        ("random_masks", {"calibration_images": 64}, {"bn_reestimation": True}),
        ("finetuning", {"distillation": 0, "temperature": 2}, {"distillation": 0.5}),
        ("finetuning", {"optimizer": "adamw", "momentum": 0.5}, {"optimizer": "sgd"}),
    ],
)
def test_an_option_of_what_is_not_done(field: str, idle: dict[str, Any], remedy: dict[str, Any]) -> None:
    place, message = fault({**BODY, field: idle})
    assert place == f"prune.{field}"
    assert "leave" in message
    NEW_JOB.validate_python({**BODY, field: {**idle, **remedy}})


@pytest.mark.parametrize("name", ["latency_batch_size", "latency_threads"])
def test_where_to_measure_a_latency_that_the_budget_does_not_bound(name: str) -> None:
    place, message = fault({**BODY, "budget": {"macs_ratio": 0.5, name: 4}})
    assert place == f"prune.budget.{name}"
    assert "set latency_ratio or latency_ms" in message
    NEW_JOB.validate_python({**BODY, "budget": {"latency_ratio": 0.5, name: 4}})
    NEW_JOB.validate_python({**BODY, "budget": {"macs_ratio": 0.5, name: 4}, "pruning": {"allocation": "latency"}})
    EstimateSpec.model_validate({**BODY, "kind": "estimate", "budget": {"macs_ratio": 0.5, name: 4}})


@pytest.mark.parametrize("rule", [{}, {"rule": "otsu"}])
def test_an_option_of_another_rule_of_an_allocation(rule: dict[str, Any]) -> None:
    pruning = {"allocation": "heuristic", "allocation_options": {**rule, "window": 0.1}}
    place, message = fault({**BODY, "pruning": pruning})
    assert place == "prune.pruning.allocation_options.window"
    assert "window is about rule largest_gap: choose that, or leave window out" in message
    for options in ({"rule": "largest_gap", "window": 0.1}, {**rule, "window": 0.25}, rule):
        NEW_JOB.validate_python({**BODY, "pruning": {**pruning, "allocation_options": options}})


def test_a_batch_size_that_would_be_measured_twice() -> None:
    place, message = fault({**BODY, "measuring": {"batch_sizes": [1, 8, 1]}})
    assert place == "prune.measuring.batch_sizes"
    assert "more than once: 1" in message
    asked = NEW_JOB.validate_python({**BODY, "measuring": {"batch_sizes": [1, 8]}}).model_dump(mode="json")
    asked["measuring"]["batch_sizes"] = [1, 8, 1]
    assert ACCEPTED_JOB.validate_python(asked).model_dump(mode="json") == asked


def test_norms_that_are_to_stay_while_weights_are_refitted() -> None:
    place, message = fault({**BODY, "recovery": {"bn_reestimation": False}})
    assert place == "prune.recovery.bn_reestimation"
    assert "set recovery.reconstruction to false" in message
    NEW_JOB.validate_python({**BODY, "recovery": {"bn_reestimation": False, "reconstruction": False}})
    kernels = {"layout": "free", "sparsity": 0.5}
    NEW_JOB.validate_python({**BODY, "recovery": {"bn_reestimation": False}, "kernels": kernels})


def test_weights_alone_do_not_hold_a_network_of_grouped_kernels() -> None:
    """They would be loaded into layers of other shapes."""
    body = {**BODY, "export": {"safetensors": True}}
    _, message = fault({**body, "kernels": {"layout": "grouped"}})
    assert "which channels the blocks of grouped kernels read" in message
    NEW_JOB.validate_python({**body, "kernels": {"layout": "free"}})
    NEW_JOB.validate_python({**BODY, "kernels": {"layout": "grouped"}})


def test_a_sweep_chooses_by_them_among_what_it_measures() -> None:
    budgets = [{"macs_ratio": ratio, "latency_batch_size": 32} for ratio in (0.7, 0.5)]
    NEW_JOB.validate_python({**SWEEP, "budgets": budgets, "measuring": {"batch_sizes": [1, 32]}})
    with pytest.raises(ValidationError, match="nothing in this budget is about latency"):
        NEW_JOB.validate_python({**SWEEP, "budgets": budgets})


@pytest.mark.parametrize(
    ("asked", "place"),
    [
        ({"budgets": [{"macs_ratio": 0.7}, {"macs_ratio": 0.5, "latency_threads": 4}]}, "budgets.1.latency_threads"),
        ({"budgets": [{"macs_ratio": 0.7}, {"size_bytes": 9}], "schedule": {}}, "budgets.1"),
        ({"budgets": [{"macs_ratio": 0.7}, {"macs_ratio": 1}], "random_masks": {}}, "budgets.1"),
        ({"budgets": [{"macs_ratio": 0.7}, {"macs_ratio": 0.5}], "random_masks": {"granularity": "kernel"}}, ""),
        (
            {"budgets": [{"macs_ratio": 0.7}, {"macs_ratio": 0.5}], "recovery": {"bn_reestimation": False}},
            "recovery.bn_reestimation",
        ),
    ],
)
def test_a_point_that_no_job_could_be_is_named(asked: dict[str, Any], place: str) -> None:
    """A sweep has no field `budget`."""
    found, _ = fault({**SWEEP, **asked})
    assert found == ".".join(filter(None, ("sweep", place)))


def test_two_points_of_a_sweep_that_are_one() -> None:
    budgets = [{"macs_ratio": 0.5}, {"macs_ratio": 0.7}, {"macs_ratio": 0.5, "latency_threads": 1}]
    assert fault({**SWEEP, "budgets": budgets}) == (
        "sweep.budgets.2",
        "the same budget as budgets.0: leave one of them out",
    )


def test_defaults_that_are_written_out_are_no_fault() -> None:
    job = JobSpec.model_validate(BODY)
    assert JobSpec.model_validate(job.model_dump(mode="json")) == job
    assert Export.model_validate(Export(int8=True).model_dump() | {"int8": False}) == Export()
    sweep = NEW_JOB.validate_python({**SWEEP, "budgets": [{"macs_ratio": 0.7}, {"macs_ratio": 0.5}]})
    assert NEW_JOB.validate_python(sweep.model_dump(mode="json")) == sweep


def test_a_report_is_read_whatever_its_job_asked_for_before_there_was_a_rule_about_it() -> None:
    document = sweep_report().model_dump(mode="json")
    spec = document["spec"]
    spec["export"]["float16_io"] = True
    spec["budgets"][0]["latency_threads"] = 4
    spec["budgets"][2] = spec["budgets"][0]
    assert SweepReport.model_validate(document).spec.export.float16_io
    with pytest.raises(ValidationError):
        NEW_JOB.validate_python(spec)


def test_a_job_that_waited_is_carried_out_whatever_it_asked_for_before_there_was_a_rule_about_it() -> None:
    """It was accepted; the worker reads its row, and the worker's child what the worker writes."""
    asked = NEW_JOB.validate_python({**BODY, "finetuning": {"distillation": 0}}).model_dump(mode="json")
    asked["finetuning"]["temperature"] = 2.0
    asked["kernels"] = {"layout": "free", "sparsity": 0.5, "blocks": 8}
    with pytest.raises(ValidationError):
        NEW_JOB.validate_python(asked)
    for adapter in (ACCEPTED_JOB, TypeAdapter(Order.__annotations__["spec"])):
        spec = adapter.validate_json(json.dumps(asked))
        assert isinstance(spec, JobSpec)
        assert spec.kernels is not None
        assert spec.kernels.blocks == 8


def test_a_report_is_read_whatever_options_its_methods_had() -> None:
    """The reconstruction of gamma has had another version, whose jobs stand in their reports."""
    document = sweep_report().model_dump(mode="json")
    options = {"rule": "mean_std", "version": 1, "window": 0.25, "of_old": True}
    document["spec"]["pruning"] |= {"allocation": "heuristic", "allocation_options": options}
    assert SweepReport.model_validate(document).spec.pruning.allocation_options == options
    with pytest.raises(ValidationError, match="2 was expected"):
        NEW_JOB.validate_python(document["spec"])
