"""The report of a sweep in the terminal."""

import io

from rich.console import Console

from espalier.sweep_tables import all_of
from tests.sweep_reports import UNREACHABLE, sweep_report


def printed() -> str:
    console = Console(file=io.StringIO(), width=80)
    for table in all_of(sweep_report()):
        console.print(table)
    return console.file.getvalue()


def test_each_point_has_the_verdict_on_its_budget():
    text = printed()
    assert text.count("✓") == 1
    assert text.count("✗") == 1
    assert f"latency_ms 1.93, asked for at most 1e-09: {UNREACHABLE}" in " ".join(text.split())


def test_jobs_are_whole_in_a_narrow_terminal():
    for number in (1, 2, 3):
        assert f"job_{number:032x}" in printed()
