"""Every hostile model ends as `rejected`, with a reason, within seconds and 512 MB, and leaves nothing behind."""

import pytest

from tests.attacks.conftest import Upload
from tests.attacks.onnx_files import ATTACKS

MEMORY_BYTES = 512 * 2**20  # as a limit on the child's address space, which is more than it can ever touch


@pytest.mark.parametrize("name", ATTACKS)
def test_rejected(upload: Upload, name: str) -> None:
    make, codes = ATTACKS[name]
    verdict = upload(make(), "model", "onnx", inspect_memory_bytes=MEMORY_BYTES, inspect_deadline_s=5)
    assert verdict.state == "rejected"
    assert verdict.rejection["code"] in codes, verdict.rejection
    assert verdict.rejection["message"]
    assert verdict.rejection["hint"]
    assert not verdict.stray_files
    assert verdict.seconds < 10
