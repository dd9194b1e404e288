"""Every hostile dataset is `rejected` with a reason, within 2 s of CPU time and 512 MB, and leaves nothing behind."""

from pathlib import Path

import pytest

from tests.attacks.conftest import Upload
from tests.attacks.dataset_files import ATTACKS


@pytest.mark.parametrize("name", ATTACKS)
def test_rejected(upload: Upload, name: str) -> None:
    make, format, codes = ATTACKS[name]
    verdict = upload(make(), "dataset", format)
    assert verdict.state == "rejected"
    assert verdict.rejection["code"] in codes, verdict.rejection
    assert verdict.rejection["message"]
    assert verdict.rejection["hint"]
    assert not verdict.stray_files
    assert not Path("/tmp/espalier-attack").exists()
