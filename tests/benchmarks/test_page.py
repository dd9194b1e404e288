"""docs/results.md says what the results files say, and each row which commits measured it."""

import json
from pathlib import Path

from benchmarks import page, results

MACHINE = {"cores": 2, "processor": "P", "memory_bytes": 2**34, "python": "3.11", "versions": {"torch": "2.14"}}


def test_the_page_is_up_to_date() -> None:
    assert page.PAGE.read_text() == page.render(page.RESULTS), "run: python -m benchmarks.page"


def test_a_file_of_results_as_a_section(tmp_path: Path) -> None:
    claims = [
        {"name": "a|b", "issue": 1, "value": "two\nlines", "goal": "any", "holds": True},
        {"name": "c", "issue": 2, "value": "3", "goal": "4", "holds": False},
    ]
    contents = {
        "machine": {**MACHINE, "commit": "c" * 40},
        "commits": {"0": ["a" * 40], "1": ["b" * 40 + "+changes"], "2": ["b" * 40 + "+changes"]},
        "claims": claims,
    }
    (tmp_path / "speed.json").write_text(json.dumps(contents))
    assert page.render(tmp_path).partition("## speed\n")[2] == (
        "\n`python -m benchmarks.speed`: 2 cores of P, 16 GiB, Python 3.11, torch 2.14; "
        "rows of commits bbbbbbbbbb with changes (2), aaaaaaaaaa (1).\n\n"
        "| issue | what was measured | value | goal | holds |\n|---|---|---|---|---|\n"
        "| 1 | a\\|b | two lines | any | yes |\n"
        "| 2 | c | 3 | 4 | **no** |\n\n"
        "The rows: [`speed.json`](../benchmarks/results/speed.json).\n"
    )


def test_rows_keep_the_commits_that_measured_them() -> None:
    first = {"rows": {"x": {"top1": {"cut": 0.5}}, "y": {"top1": {"cut": 0.6}}}}
    first["commits"] = results.measured_at({}, first, "one")
    assert first["commits"] == {"x": ["one"], "y": ["one"]}
    trained = {"top1": {"cut": 0.5}, "trained": {"3": 0.9}}
    then = {"rows": {"x": trained, "y": {"top1": {"cut": 0.7}}, "z": {"top1": {"cut": 0.8}}}}
    assert results.measured_at(first, then, "two") == {"x": ["one", "two"], "y": ["two"], "z": ["two"]}


def test_rows_of_a_list_and_of_parts_keep_theirs_too() -> None:
    first = {"rows": [{"ms": 1.0}], "paper": {"base": {"rows": {"a": {"error": 0.1}}}}}
    first["commits"] = results.measured_at({}, first, "one")
    then = {"rows": [{"ms": 2.0}, {"ms": 1.0}], "paper": {"base": {"rows": {"a": {"error": 0.1}}}}}
    assert results.measured_at(first, then, "two") == {"0": ["two"], "1": ["one"], "paper/base/a": ["one"]}
