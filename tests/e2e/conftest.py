"""One service for all tests of a module."""

from collections.abc import Iterator

import pytest

from tests.e2e.served import Served, served


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("serve") / "data") as service:
        yield service
