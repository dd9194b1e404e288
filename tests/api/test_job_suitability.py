"""Jobs that cannot be done on the model at hand are refused when they are sent."""

import pytest

from models_store.documents.inspection import TensorInfo
from tests.api.answers import problem
from tests.api.running_api import Service
from tests.api.store_side import MODEL_INSPECTION

BUDGET = {"macs_ratio": 0.5}
SLOW = {"latency_ratio": 0.9, "latency_batch_size": 32}


def _model(service: Service, **found: object) -> str:
    """The id of a model of which the inspection found this."""
    model_id = service.upload_model()
    service.worker.inspect(model=MODEL_INSPECTION.model_copy(update=found))
    return model_id


def _inputs(*shapes: tuple[int | str | None, ...]) -> dict[str, object]:
    return {"inputs": tuple(TensorInfo(name=f"x{i}", dtype="float", shape=shape) for i, shape in enumerate(shapes))}


@pytest.mark.parametrize(
    ("asked", "place"),
    [
        ({"budget": SLOW}, "budget.latency_batch_size"),
        ({"kind": "estimate", "budget": SLOW}, "budget.latency_batch_size"),
        ({"budget": BUDGET, "measuring": {"batch_sizes": [4, 1]}}, "measuring.batch_sizes"),
    ],
)
def test_a_batch_size_that_the_model_cannot_take_is_refused(
    sqlite_service: Service, asked: dict[str, object], place: str
) -> None:
    body = {"model_id": _model(sqlite_service, **_inputs((1, 3, 8, 8)))} | asked
    refusal = problem(sqlite_service.http.post("/v1/jobs", json=body), 422, "fixed_batch_size")
    assert f"fixed batch size of 1, and {place} asks" in refusal["detail"]
    assert "dynamic batch dimension" in refusal["hint"]
    assert sqlite_service.http.get("/v1/jobs").json()["items"] == []
    body["model_id"] = _model(sqlite_service, **_inputs(("N", 3, 8, 8)))
    assert sqlite_service.http.post("/v1/jobs", json=body).status_code == 202


def test_a_point_of_a_sweep_is_refused_by_its_place(sqlite_service: Service) -> None:
    body = {"kind": "sweep", "model_id": _model(sqlite_service, **_inputs((1, 3, 8, 8))), "budgets": [BUDGET, SLOW]}
    body["dataset_id"] = sqlite_service.ready_dataset()
    refusal = problem(sqlite_service.http.post("/v1/jobs", json=body), 422, "fixed_batch_size")
    assert "budgets.1.latency_batch_size" in refusal["detail"]


@pytest.mark.parametrize("shape", [(4, 3, 8, 8), (3, 8, 8), (1, 16_000), ("N", 3, 8, 8), (None, 3, 8, 8)])
def test_defaults_suit_every_model(sqlite_service: Service, shape: tuple[int | str | None, ...]) -> None:
    body = {"model_id": _model(sqlite_service, **_inputs(shape)), "budget": {"latency_ratio": 0.9}}
    assert sqlite_service.http.post("/v1/jobs", json=body).status_code == 202


def test_the_models_own_batch_size_may_be_named(sqlite_service: Service) -> None:
    body = {"model_id": _model(sqlite_service, **_inputs((4, 3, 8, 8)))}
    asked = {"budget": {"latency_ms": 1, "latency_batch_size": 4}, "measuring": {"batch_sizes": [4]}}
    assert sqlite_service.http.post("/v1/jobs", json=body | asked).status_code == 202


@pytest.mark.parametrize("kind", ["prune", "estimate"])
def test_a_model_without_anything_to_prune_is_refused(sqlite_service: Service, kind: str) -> None:
    body = {"kind": kind, "model_id": _model(sqlite_service, macs=0, params=0, layers=()), "budget": BUDGET}
    refusal = problem(sqlite_service.http.post("/v1/jobs", json=body), 422, "nothing_to_prune")
    assert "nothing in it to prune" in refusal["detail"]


@pytest.mark.parametrize(
    ("shape", "values", "told"),
    [
        (("N", 1, 8, 8), 3, "images of 1 channel."),
        (("N", 3, 8, 8), 2, "images of 3 channels."),
        (("N", 8, 8, 3), 4, "images of 3 channels."),
        (("N", 5, 8, 8), 3, "images of 5 channels."),
        (("N", 3, 8, 8), 3, None),
        (("N", 8, 8, 3), 3, None),
        (("N", 3, 8, 8), 1, None),
        (("N", "C", 8, 8), 7, None),
        (("N", 3), 7, None),
    ],
)
def test_mean_and_std_have_a_value_for_each_channel(
    sqlite_service: Service, shape: tuple[int | str, ...], values: int, told: str | None
) -> None:
    body = {"model_id": _model(sqlite_service, **_inputs(shape)), "budget": BUDGET}
    body |= {"data": {"mean": [0.5] * values, "std": [1.0] * values}}
    assert sqlite_service.http.post("/v1/jobs", json=body).status_code == 202  # without data it says nothing
    with_data = body | {"dataset_id": sqlite_service.ready_dataset()}
    answer = sqlite_service.http.post("/v1/jobs", json=with_data)
    if told is None:
        assert answer.status_code == 202
    else:
        assert told in problem(answer, 422, "normalisation_mismatch")["detail"]
