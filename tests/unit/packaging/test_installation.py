"""What examples, documents and hints say to install: never by the bare name, which is a stranger's in the index."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = ("docs", "espalier", "examples")
BY_NAME = re.compile(r"""pip install\b[^\n]*?[\s'"]espalier(?![\w./-])""")


def test_nothing_says_to_install_by_name():
    files = [ROOT / "README.md", *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.*"))]
    texts = {path: path.read_text() for path in files if path.suffix in {".md", ".py", ".sh", ".yml"}}
    assert BY_NAME.search("pip install 'espalier[demo]'")
    assert [path.name for path, text in texts.items() if BY_NAME.search(text)] == []


def test_ci_examples_install_what_a_variable_names_and_nothing_without_it():
    github = yaml.safe_load((ROOT / "examples/github-actions.yml").read_text())["jobs"]["prune"]["steps"]
    gitlab = yaml.safe_load((ROOT / "examples/gitlab-ci.yml").read_text())["prune"]["script"]
    commands = [step.get("run", "") for step in github] + gitlab
    installing = [command for command in commands if "install" in command]
    assert installing == ['pip install "${ESPALIER_PACKAGE:?}"'] * 2
