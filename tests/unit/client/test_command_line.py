"""What all commands have in common: JSON, completion, and where their defaults come from."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from espalier.cli import app, main

JOB = f"job_{0:032x}"


def commands(group: TyperGroup, *above: str) -> Iterator[tuple[str, object]]:
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, *above, name)
        else:
            yield " ".join((*above, name)), command


def run(*arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What an unreachable service is called, or what else is said to be wrong."""
    monkeypatch.setattr(sys, "argv", ["espalier", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    return capsys.readouterr().err


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config.toml"
    monkeypatch.setenv("ESPALIER_CONFIG", str(path))
    monkeypatch.delenv("ESPALIER_URL", raising=False)
    monkeypatch.setenv("ESPALIER_API_KEY", "")
    return path


def test_every_command_prints_json_and_has_help():
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    found = dict(commands(group))
    assert len(found) > 15
    for name, command in found.items():
        options = [spelt for parameter in command.params for spelt in parameter.opts]
        assert "--json" in options, name
        assert command.help, name


def test_options_go_before_the_environment_and_that_before_the_file(config, monkeypatch, capsys):
    config.write_text('url = "http://127.0.0.1:1"\n[report]\njson = true\n')
    told = [run("report", JOB, monkeypatch=monkeypatch, capsys=capsys)]
    monkeypatch.setenv("ESPALIER_URL", "http://127.0.0.1:2")
    told.append(run("report", JOB, monkeypatch=monkeypatch, capsys=capsys))
    told.append(run("report", JOB, "--url", "http://127.0.0.1:3", monkeypatch=monkeypatch, capsys=capsys))
    assert ["no answer from http://127.0.0.1:1" in told[0], "127.0.0.1:2" in told[1], "127.0.0.1:3" in told[2]] == [
        True
    ] * 3


def test_the_key_of_the_file_is_used_unless_the_environment_has_one(config, monkeypatch, capsys):
    config.write_text('url = "http://127.0.0.1:1"\napi_key = "esp_file"\n')
    run("report", JOB, monkeypatch=monkeypatch, capsys=capsys)
    assert os.environ["ESPALIER_API_KEY"] == ""
    monkeypatch.delenv("ESPALIER_API_KEY")
    run("report", JOB, monkeypatch=monkeypatch, capsys=capsys)
    assert os.environ["ESPALIER_API_KEY"] == "esp_file"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("colour = 1", "colour is none of: url, api_key, [serve]"),
        ("[prune]\ncolour = 1", "[prune] has no option colour; it has: allocation"),
        ("prune = 1", "[prune] is no table"),
        ("url = ", "Invalid value"),
        (None, "no such file"),
    ],
)
def test_a_file_with_mistakes_is_told_so(config, monkeypatch, capsys, text, word):
    if text is not None:
        config.write_text(text)
    told = run("report", JOB, monkeypatch=monkeypatch, capsys=capsys)
    assert "(invalid_config)" in told
    assert word in told


def test_defaults_of_a_command_are_checked_like_options(config, monkeypatch, capsys, tmp_path):
    config.write_text("[prune]\nmacs-ratio = 7.0\n")
    assert "macs_ratio" in run("prune", "mdl_x", monkeypatch=monkeypatch, capsys=capsys)


def test_completion_installs_itself_and_completes(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    espalier = Path(sys.executable).with_name("espalier")
    environment = {"HOME": str(home), "PATH": f"{espalier.parent}:{os.environ['PATH']}", "SHELL": "/bin/bash"}
    # Typer asks the processes above for the shell, and those of a test run may be none: here it is told.
    told = environment | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    subprocess.run([espalier, "--install-completion", "bash"], env=told, check=True, capture_output=True)
    assert "espalier" in (home / ".bashrc").read_text()
    script = (
        f"source {home}/.bash_completions/espalier.sh; COMP_WORDS=(espalier pipelines r); COMP_CWORD=2; "
        '_espalier_completion espalier; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["runs", "remove"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("auto", "no answer from"),
        ("0.5", "no answer from"),
        ("1.5", "finetuning.distillation: Input should be 'auto' or a number from 0 to 1"),
        ("sometimes", "finetuning.distillation: Input should be 'auto' or a number from 0 to 1"),
    ],
)
def test_a_share_in_the_file_is_taken_back_to_auto_by_the_command_line(config, given, told, monkeypatch, capsys):
    config.write_text('url = "http://127.0.0.1:1"\n[prune]\ndistillation = 2.0\n')
    line = ("prune", f"mdl_{0:032x}", "--dataset", f"dst_{0:032x}", "--macs-ratio", "0.5", "--distillation", given)
    assert told in run(*line, monkeypatch=monkeypatch, capsys=capsys)
