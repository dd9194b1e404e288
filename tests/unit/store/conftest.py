"""Repositories of which every call is a transaction of its own, as requests make them."""

from collections.abc import Callable
from typing import Any

import pytest

from models_store.database import Database
from models_store.datasets import DatasetRepository
from models_store.jobs import JobRepository
from models_store.models import ModelRepository
from models_store.projects import DEFAULT_PROJECT


class EachInItsTransaction:
    def __init__(self, database: Database, repository: Callable[..., Any]) -> None:
        self._database = database.of_project(DEFAULT_PROJECT)
        self._repository = repository

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            with self._database.session() as session:
                return getattr(self._repository(session), name)(*arguments, **keywords)

        return call


@pytest.fixture
def jobs(database: Database) -> Any:
    return EachInItsTransaction(database, JobRepository)


@pytest.fixture
def models(database: Database) -> Any:
    return EachInItsTransaction(database, ModelRepository)


@pytest.fixture
def datasets(database: Database) -> Any:
    return EachInItsTransaction(database, DatasetRepository)
