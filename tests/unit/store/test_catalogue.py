"""The catalogue of methods: current, and what it refuses."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from models_store import catalogue
from models_store.catalogue import Method, OnlyWith
from models_store.documents.job_spec import Budget, EstimateSpec, JobSpec, SweepSpec
from models_store.documents.pipeline import JobTemplate

ROOT = Path(__file__).resolve().parents[3]
MODEL = "mdl_" + "0" * 32
DATASET = "dst_" + "0" * 32


def spec(**pruning: object) -> JobSpec:
    return JobSpec.model_validate({"model_id": MODEL, "budget": {"macs_ratio": 0.5}, "pruning": pruning})


def faults(**pruning: object) -> dict[tuple[str | int, ...], str]:
    with pytest.raises(ValidationError) as refused:
        spec(**pruning)
    return {fault["loc"]: fault["msg"] for fault in refused.value.errors()}


def test_the_committed_catalogue_is_what_the_engine_declares() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "worker.engine.catalogue"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert catalogue.FILE.read_text() == printed.stdout, "run `make catalogue`"


def test_every_method_says_what_it_is() -> None:
    methods = catalogue.catalogue().methods
    assert len({(method.kind, method.name) for method in methods}) == len(methods)
    assert {method.kind for method in methods} == set(catalogue.Kind)
    for method in methods:
        assert method.title, method
        assert method.summary.endswith("."), method
        assert bool(method.paper) == (method.exactness != "own"), method
        assert method.faults(method.with_defaults({})) == [], method
        for name, option in method.options.get("properties", {}).items():
            assert "default" in option, (method, name)
            assert option.get("description"), (method, name)
        for rule in method.only_with:
            assert set(rule.names) <= set(catalogue.names(rule.kind)), method


def test_every_method_is_asked_for_by_a_field_of_a_job_that_has_its_options() -> None:
    schema = JobSpec.model_json_schema()
    for method in catalogue.catalogue().methods:
        *place, last = method.asked_for_by.split(".")
        beneath = schema
        for name in place:
            beneath = resolved(schema, beneath["properties"][name])
        assert last in beneath["properties"] or f"{last}_options" in beneath["properties"], method
        if f"{last}_options" in beneath["properties"]:
            continue  # checked against the method's own schema when a job is submitted
        for name, declared in method.options.get("properties", {}).items():
            option, field = resolved(method.options, declared), resolved(schema, beneath["properties"][name])
            words = ("default", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "enum", "type")
            assert {w: option[w] for w in words if w in option} == {w: field[w] for w in words if w in field}, method


def resolved(schema: dict[str, Any], field: dict[str, Any]) -> dict[str, Any]:
    """The object or value that a field of a JSON schema is of, where it may be none, a word instead of a number, or
    defined elsewhere."""
    wanted = next((f for f in reversed(field.get("anyOf", ())) if f.get("type") != "null"), field)
    path = wanted.get("$ref", "").rpartition("/")[2]
    return {**wanted, **schema["$defs"][path]} if path else {**field, **wanted}


def test_recovery_that_the_job_has_no_images_for_is_refused_with_the_reason() -> None:
    asked_for: dict[str, dict[str, object]] = {
        "recovery.bn_reestimation": {"recovery": {"bn_reestimation": True}},
        "recovery.reconstruction": {"recovery": {"reconstruction": True}},
        "finetuning.distillation": {"finetuning": {"distillation": 0.5}},
        "regularisation.method": {"regularisation": {"method": "greg"}},
    }
    for place, body in asked_for.items():
        with pytest.raises(ValidationError) as refused:
            JobSpec.model_validate({"model_id": MODEL, "budget": {"macs_ratio": 0.5}, **body})
        (fault,) = refused.value.errors()
        assert ".".join(map(str, fault["loc"])) == place
        assert "needs images, and the job has no dataset" in fault["msg"]
        JobSpec.model_validate({"model_id": MODEL, "dataset_id": DATASET, "budget": {"macs_ratio": 0.5}, **body})


@pytest.mark.parametrize("share", ["sometimes", 1.5, -0.1, None])
def test_a_share_that_is_none_is_refused_in_one_sentence(share: object) -> None:
    with pytest.raises(ValidationError) as refused:
        JobSpec.model_validate(
            {"model_id": MODEL, "budget": {"macs_ratio": 0.5}, "finetuning": {"distillation": share}}
        )
    (fault,) = refused.value.errors()
    assert fault["loc"] == ("finetuning", "distillation")
    assert fault["msg"] == "Input should be 'auto' or a number from 0 to 1"


def test_whole_kernels_are_not_refitted_where_some_are_taken_out() -> None:
    body = {"kernels": {"layout": "free"}, "recovery": {"reconstruction": True}}
    with pytest.raises(ValidationError, match="'reconstruction' does not go with granularity 'free': it refits"):
        JobSpec.model_validate({"model_id": MODEL, "dataset_id": DATASET, "budget": {"macs_ratio": 0.5}, **body})


def test_options_are_spelt_out() -> None:
    pruning = spec(criterion="l1", criterion_options={"aggregation": "max"}).pruning
    assert pruning.criterion_options == {"aggregation": "max", "normalisation": "mean"}
    assert JobSpec(model_id=MODEL, budget=Budget(macs_ratio=0.5)).pruning.criterion_options["aggregation"] == "mean"


@pytest.mark.parametrize(
    ("body", "criterion", "allocation"),
    [
        ({}, "l2", "uniform"),
        ({"dataset_id": DATASET}, "refit", "sensitivity"),
        ({"dataset_id": DATASET, "data": {"labels": False}}, "refit", "sensitivity"),
        ({"dataset_id": DATASET, "pruning": {"allocation": "global"}}, "refit", "global"),
        ({"budget": {"latency_ratio": 0.5}}, "l2", "latency"),
        ({"dataset_id": DATASET, "budget": {"macs_ratio": 0.5, "latency_ms": 3}}, "refit", "sensitivity"),
        ({"dataset_id": DATASET, "budget": {"latency_ms": 3}, "pruning": {"criterion": "l1"}}, "l1", "latency"),
        ({"budget": {"latency_ms": 3}, "pruning": {"allocation": "uniform"}}, "l2", "uniform"),
        ({"dataset_id": DATASET, "pruning": {"criterion": "taylor"}}, "taylor", "uniform"),
        ({"dataset_id": DATASET, "pruning": {"allocation": "heuristic"}}, "l1", "heuristic"),
        ({"dataset_id": DATASET, "random_masks": {}}, "l2", "uniform"),
        ({"dataset_id": DATASET, "random_masks": {}, "budget": {"latency_ratio": 0.5}}, "l2", "uniform"),
        (
            {"dataset_id": DATASET, "random_masks": {"granularity": "kernel"}, "kernels": {"layout": "free"}},
            "refit",
            "sensitivity",
        ),
    ],
)
def test_methods_that_are_left_out_are_the_best_for_data_and_budget(
    body: dict[str, Any], criterion: str, allocation: str
) -> None:
    job = JobSpec.model_validate({"model_id": MODEL, "budget": {"macs_ratio": 0.5}, **body})
    assert (job.pruning.criterion, job.pruning.allocation) == (criterion, allocation)
    assert job.pruning.criterion_options == job.pruning.methods()["criterion"].with_defaults({})
    named = {"criterion": criterion, "allocation": allocation}
    same = JobSpec.model_validate({"model_id": MODEL, "budget": {"macs_ratio": 0.5}, **body, "pruning": named})
    assert same == job


def test_refit_compares_its_errors_as_they_are() -> None:
    assert catalogue.find("criterion", "refit").with_defaults({})["normalisation"] == "none"


def test_options_without_a_name_are_those_of_the_method_that_is_chosen() -> None:
    body = {"model_id": MODEL, "dataset_id": DATASET, "budget": {"macs_ratio": 0.5}}
    job = JobSpec.model_validate({**body, "pruning": {"criterion_options": {"normalisation": "max", "ridge": 0.1}}})
    assert (job.pruning.criterion_options["normalisation"], job.pruning.criterion_options["ridge"]) == ("max", 0.1)
    assert "no option 'ridge'" in faults(criterion_options={"ridge": 0.1})["pruning", "criterion_options", "ridge"]


def test_each_point_of_a_sweep_has_the_methods_for_its_budget() -> None:
    body = {"kind": "sweep", "model_id": MODEL, "dataset_id": DATASET}
    sweep = SweepSpec.model_validate({**body, "budgets": [{"macs_ratio": 0.7}, {"latency_ratio": 0.5}]})
    chosen = [(job.pruning.criterion, job.pruning.allocation) for job in sweep.jobs()]
    assert chosen == [("refit", "sensitivity"), ("refit", "sensitivity")]


def test_an_estimate_has_the_methods_of_the_job_that_it_forecasts() -> None:
    body = {"kind": "estimate", "model_id": MODEL}
    assert EstimateSpec.model_validate(body).pruning.criterion == "l2"
    assert EstimateSpec.model_validate({**body, "dataset_id": DATASET}).pruning.allocation == "sensitivity"


def test_a_template_leaves_methods_to_its_runs_which_may_bring_images() -> None:
    template = JobTemplate.model_validate({"budget": {"macs_ratio": 0.5}, "pruning": {"round_to": 4}})
    assert template.pruning.criterion is None
    body = {**template.model_dump(mode="json"), "model_id": MODEL}
    for dataset_id, criterion in ((None, "l2"), (DATASET, "refit")):
        job = JobSpec.model_validate({**body, "dataset_id": dataset_id})
        assert (job.pruning.criterion, job.pruning.round_to) == (criterion, 4)


def test_a_template_with_options_that_no_run_could_have_is_refused() -> None:
    body = {"budget": {"macs_ratio": 0.5}}
    for options in ({"ridge": 0.1}, {"aggregation": "max"}):  # with images, and without
        JobTemplate.model_validate({**body, "pruning": {"criterion_options": options}})
    with pytest.raises(ValidationError, match="no option 'nonsense'"):
        JobTemplate.model_validate({**body, "pruning": {"criterion_options": {"nonsense": 1}}})
    with pytest.raises(ValidationError, match="no option 'aggregation'"):
        JobTemplate.model_validate(
            {**body, "dataset_id": DATASET, "pruning": {"criterion_options": {"aggregation": "max"}}}
        )


def test_a_template_of_random_masks_takes_the_options_that_its_runs_take() -> None:
    """Their methods are others than those of a job with images."""
    body = {"budget": {"macs_ratio": 0.5}, "dataset_id": DATASET, "random_masks": {"granularity": "feature_map"}}
    run: tuple[type[JobSpec], dict[str, str]] = (JobSpec, {"model_id": MODEL})
    for kind, given in (run, (JobTemplate, {})):
        kind.model_validate({**body, **given, "pruning": {"criterion_options": {"aggregation": "max"}}})
        with pytest.raises(ValidationError, match="criterion 'l2' has no option 'ridge'"):
            kind.model_validate({**body, **given, "pruning": {"criterion_options": {"ridge": 0.1}}})


def test_a_spec_survives_its_row() -> None:
    before = spec(criterion="l1")
    assert JobSpec.model_validate(before.model_dump(mode="json")) == before


def test_an_unknown_method_is_refused_with_those_there_are() -> None:
    message = faults(criterion="best")["pruning", "criterion"]
    assert "'best'" in message
    assert all(name in message for name in catalogue.names("criterion"))


def test_an_unknown_option_is_refused_with_those_there_are() -> None:
    message = faults(criterion="l1", criterion_options={"agregation": "max"})[
        "pruning", "criterion_options", "agregation"
    ]
    assert "aggregation" in message


def test_a_bad_option_is_refused_at_its_place() -> None:
    found = faults(criterion="l1", criterion_options={"aggregation": "median"})
    assert "median" in found["pruning", "criterion_options", "aggregation"]


def test_a_whole_number_is_an_integer_however_it_is_written() -> None:
    body = {"model_id": MODEL, "dataset_id": DATASET, "budget": {"macs_ratio": 0.5}}
    job = JobSpec.model_validate(
        {**body, "pruning": {"criterion": "apoz", "criterion_options": {"calibration_images": 64.0}}}
    )
    assert isinstance(job.pruning.criterion_options["calibration_images"], int)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_option_that_is_no_number_is_refused(value: float) -> None:
    (message,) = faults(allocation="heuristic", allocation_options={"window": value}).values()
    assert "finite number" in message


def method(name: str, **changes: object) -> Method:
    return catalogue.find("criterion", "l1").model_copy(update={"name": name, **changes})


def test_a_method_that_needs_data_is_refused_without_and_told_what_needs_none() -> None:
    hungry = method("hungry", data="labels")
    for data in ("none", "images"):
        ((blamed, reason),) = catalogue.conflicts([hungry], data)  # type: ignore[arg-type]
        assert blamed is hungry
        assert "needs labels" in reason
        assert "l1" in reason
    assert catalogue.conflicts([hungry], "labels") == []


def test_methods_that_do_not_work_together_are_refused_with_the_reason() -> None:
    choosy = method("choosy", only_with=(OnlyWith(kind="allocation", names=("global",), reason="it counts."),))
    uniform, everywhere = (catalogue.find("allocation", name) for name in ("uniform", "global"))
    ((blamed, reason),) = catalogue.conflicts([choosy, uniform], "none")
    assert blamed is choosy
    assert reason == "criterion 'choosy' works with allocation global only, not uniform: it counts."
    assert catalogue.conflicts([choosy, everywhere], "none") == []
