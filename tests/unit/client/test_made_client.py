"""The plain client is what `make client` makes of the one to be awaited."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SYNCHRONOUS = ROOT / "espalier" / "client" / "synchronous"


def test_the_plain_client_is_up_to_date(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import make_client

    make_client.main(tmp_path)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert set(made) == {f"{name}.py" for name in make_client.MODULES}
    for name, text in made.items():
        assert (SYNCHRONOUS / name).read_text() == text, f"{name}: run `make client`"
    sys.modules.pop("make_client")
