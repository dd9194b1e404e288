"""The page of a sweep."""

from tests.sweep_reports import UNREACHABLE, sweep_report
from worker.runner.html_report.sweep_page import render_sweep


def test_each_point_has_the_verdict_on_its_budget():
    page = render_sweep(sweep_report())
    assert page.count("✓ met") == 1
    assert page.count("✗ unreachable") == 1
    assert UNREACHABLE in page
