"""Write espalier/client/synchronous from espalier/client/asynchronous: `make client`."""

import subprocess
import sys
from pathlib import Path

import unasync

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "espalier" / "client" / "asynchronous"
MODULES = ("wire", "sending", "administration", "automation", "client")
HEADER = "# Made by `make client` from {source}: change that file, not this one.\n"
REPLACED = {
    "AsyncAdministration": "Administration",
    "AsyncAutomation": "Automation",
    "AsyncClient": "Client",
    "AsyncBaseTransport": "BaseTransport",
    "aclose": "close",
    "aiter_bytes": "iter_bytes",
    "aread": "read",
    "asynchronous": "synchronous",
}


def main(target: Path) -> None:
    """Write the modules into the folder `target`."""
    rule = unasync.Rule(fromdir=str(SOURCE), todir=str(target), additional_replacements=REPLACED)
    written = []
    for name in MODULES:
        source = SOURCE / f"{name}.py"
        unasync.unasync_files([str(source)], [rule])
        made = target / source.name
        made.write_text(HEADER.format(source=source.relative_to(ROOT)) + made.read_text())
        written.append(str(made))
    ruff = [Path(sys.executable).with_name("ruff")]
    settings = ["--quiet", "--config", str(ROOT / "pyproject.toml")]
    subprocess.run([*ruff, "check", *settings, "--select", "I", "--fix", *written], check=True)
    subprocess.run([*ruff, "format", *settings, *written], check=True)


if __name__ == "__main__":
    main(ROOT / "espalier" / "client" / "synchronous")
