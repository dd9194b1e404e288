"""The page of a sweep."""

from tests.sweep_reports import UNREACHABLE, sweep_report
from worker.runner.html_report.sweep_page import render_sweep


def test_each_point_has_the_verdict_on_its_budget():
    page = render_sweep(sweep_report())
    assert page.count("✓ met") == 1
    assert page.count("✗ unreachable") == 1
    assert UNREACHABLE in page


def test_one_point_lies_on_a_front_and_two_lie():
    report = sweep_report()
    assert "1 of them lies on the front of accuracy against MACs, 2 on" in render_sweep(report)
    assert "2 of them lie on the front" in render_sweep(report.model_copy(update={"front_macs": (0, 1)}))
