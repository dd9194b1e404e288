"""Every hostile dataset ends as `rejected`, with a reason, within seconds and 512 MB, and leaves nothing behind."""

from pathlib import Path

import pytest

from tests.attacks.conftest import Upload
from tests.attacks.dataset_files import ATTACKS

MEMORY_BYTES = 512 * 2**20  # as a limit on the child's address space, which is more than it can ever touch


@pytest.mark.parametrize("name", ATTACKS)
def test_rejected(upload: Upload, name: str) -> None:
    make, format, codes = ATTACKS[name]
    verdict = upload(make(), "dataset", format, inspect_memory_bytes=MEMORY_BYTES, inspect_deadline_s=10)
    assert verdict.state == "rejected"
    assert verdict.rejection["code"] in codes, verdict.rejection
    assert verdict.rejection["message"]
    assert verdict.rejection["hint"]
    assert not verdict.stray_files
    assert not Path("/tmp/espalier-attack").exists()
