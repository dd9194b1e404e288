"""Every hostile model is `rejected` with a reason, within 2 s of CPU time and 512 MB, and leaves nothing behind."""

import pytest

from tests.attacks.conftest import Upload
from tests.attacks.onnx_files import ATTACKS


@pytest.mark.parametrize("name", ATTACKS)
def test_rejected(upload: Upload, name: str) -> None:
    make, codes = ATTACKS[name]
    verdict = upload(make(), "model", "onnx")
    assert verdict.state == "rejected"
    assert verdict.rejection["code"] in codes, verdict.rejection
    assert verdict.rejection["message"]
    assert verdict.rejection["hint"]
    assert not verdict.stray_files
