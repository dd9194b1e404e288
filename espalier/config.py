"""Defaults of this user's own, in a TOML file: below the command line's options and the environment's variables.

url = "https://espalier.example.org"
api_key = "esp_…"

[prune]
criterion = "taylor"
"""

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from typer.core import TyperGroup, TyperOption

from espalier.errors import EspalierError

EVERYWHERE = ("url",)
API_KEY = "api_key"


class InvalidConfig(EspalierError):
    """The file cannot be taken for defaults."""

    def __init__(self, file: Path, reason: str) -> None:
        super().__init__(
            "invalid_config", f"{file}: {reason}", "README.md shows the form; ESPALIER_CONFIG names another file."
        )


def file() -> Path:
    """ESPALIER_CONFIG, or espalier/config.toml under XDG_CONFIG_HOME or ~/.config."""
    named = os.environ.get("ESPALIER_CONFIG")
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(named) if named else Path(home) / "espalier" / "config.toml"


def apply(command: TyperGroup) -> dict[str, Any]:
    """The `default_map` of the command; an `api_key` becomes that of the environment, unless there is one.

    Raises InvalidConfig, also for options and commands that do not exist.
    """
    path = file()
    try:
        said = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        if "ESPALIER_CONFIG" in os.environ:
            raise InvalidConfig(path, "there is no such file") from error
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidConfig(path, str(error)) from error
    key = said.pop(API_KEY, None)
    if key is not None:
        os.environ.setdefault("ESPALIER_API_KEY", str(key))
    everywhere = {name: said.pop(name) for name in EVERYWHERE if name in said}
    return _defaults(command, said, everywhere, path)


def _defaults(
    command: TyperGroup, said: Mapping[str, Any], everywhere: Mapping[str, Any], path: Path
) -> dict[str, Any]:
    unknown = sorted(set(said) - set(command.commands))
    if unknown:
        known = ", ".join([*EVERYWHERE, API_KEY, *(f"[{name}]" for name in command.commands)])
        raise InvalidConfig(path, f"{unknown[0]} is none of: {known}")
    return {
        name: _defaults(each, said.get(name, {}), everywhere, path)
        if isinstance(each, TyperGroup)
        else _options(
            name,
            [option for option in each.params if isinstance(option, TyperOption)],
            said.get(name, {}),
            everywhere,
            path,
        )
        for name, each in command.commands.items()
    }


def _options(
    command: str, options: Sequence[TyperOption], said: object, everywhere: Mapping[str, Any], path: Path
) -> dict[str, Any]:
    """By the names of the command's parameters, which the file calls as the command line does."""
    if not isinstance(said, Mapping):
        raise InvalidConfig(path, f"[{command}] is no table")
    names = {
        spelt.removeprefix("--").replace("-", "_"): str(option.name)
        for option in options
        for spelt in option.opts
        if spelt.startswith("--")
    }
    wanted = {name: value for name, value in everywhere.items() if name in names}
    wanted |= {name.replace("-", "_"): value for name, value in said.items()}
    unknown = sorted(set(wanted) - set(names))
    if unknown:
        raise InvalidConfig(path, f"[{command}] has no option {unknown[0]}; it has: {', '.join(sorted(names))}")
    return {names[name]: value for name, value in wanted.items()}
