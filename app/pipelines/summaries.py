"""A run's gates for others to show: JUnit XML for test reports, Markdown for summaries."""

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from models_store.documents.pipeline import GateVerdict, RunState
from models_store.documents.report import Report
from models_store.gates import bounds
from models_store.tables import Pipeline, PipelineRun

NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
MARK = {RunState.PASSED: "✅", RunState.FAILED: "❌", RunState.ERRORED: "⚠️", RunState.RUNNING: "⏳"}


def junit(pipeline: Pipeline, run: PipelineRun) -> bytes:
    """One test case per gate; a run that errored is one case with an error, one that still runs a skipped one."""
    verdicts = _verdicts(run)
    errored, running = run.state is RunState.ERRORED, run.state is RunState.RUNNING
    counts = {
        "tests": len(verdicts) or 1,
        "failures": sum(not verdict.passed for verdict in verdicts),
        "errors": int(errored),
        "skipped": int(running),
    }
    seconds = (run.finished_at - run.created_at).total_seconds() if run.finished_at else 0.0
    attributes = {name: str(count) for name, count in counts.items()} | {"time": f"{seconds:.3f}"}
    suites = ElementTree.Element("testsuites", attributes)
    name = _xml(pipeline.name)
    suite = ElementTree.SubElement(
        suites, "testsuite", {"name": name, **attributes, "timestamp": run.created_at.isoformat(timespec="seconds")}
    )
    for verdict in verdicts:
        case = ElementTree.SubElement(suite, "testcase", {"classname": name, "name": bounds(verdict.gate)})
        if not verdict.passed:
            _explain(case, "failure", verdict.reason)
    if not verdicts:
        case = ElementTree.SubElement(suite, "testcase", {"classname": name, "name": "job"})
        if errored:
            _explain(case, "error", run.reason)
        if running:
            ElementTree.SubElement(case, "skipped", {"message": "The job has not ended."})
    ElementTree.indent(suites)
    body: bytes = ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True)
    return body


def markdown(pipeline: Pipeline, run: PipelineRun, report: Report | None, report_url: str | None) -> str:
    """A heading, the reason, a table of the gates, one of the two models where there is a report, and the report's
    address if that is known."""
    lines = [f"### {MARK[run.state]} {_cell(pipeline.name)}: {run.state}", "", _cell(run.reason or "Under way."), ""]
    verdicts = _verdicts(run)
    if verdicts:
        lines += ["| gate | value | |", "|---|---|---|"]
        for verdict in verdicts:
            value = "none" if verdict.value is None else f"{verdict.value:.6g}"
            lines.append(f"| {_cell(bounds(verdict.gate))} | {value} | {'✅' if verdict.passed else '❌'} |")
        lines.append("")
    if report is not None:
        lines += ["| | original | pruned |", "|---|---:|---:|", *(f"| {row} |" for row in _models(report)), ""]
    if report_url:
        lines += [f"[Report]({report_url})", ""]
    return "\n".join(lines)


def _models(report: Report) -> Iterator[str]:
    """The two models side by side, a row per quantity that was measured of both."""
    before, after = report.original, report.pruned
    if report.accuracy is not None:
        yield f"accuracy (test) | {report.accuracy.original.top1:.2%} | {report.accuracy.final.top1:.2%}"
    yield f"MACs | {before.macs:,} | {after.macs:,}"
    yield f"parameters | {before.params:,} | {after.params:,}"
    yield f"file size | {before.size_bytes / 1e6:,.3f} MB | {after.size_bytes / 1e6:,.3f} MB"
    if before.peak_memory_bytes and after.peak_memory_bytes:
        yield f"peak memory | {before.peak_memory_bytes / 1e6:,.1f} MB | {after.peak_memory_bytes / 1e6:,.1f} MB"
    for row in report.latency:
        name = f"latency, {row.setting} (p50)"
        yield f"{name} | {row.original.p50_ms:.3f} ms | {row.pruned.p50_ms:.3f} ms"


def _verdicts(run: PipelineRun) -> list[GateVerdict]:
    return [GateVerdict.model_validate(verdict) for verdict in run.verdicts]


def _explain(case: ElementTree.Element, kind: str, reason: str) -> None:
    ElementTree.SubElement(case, kind, {"message": _xml(reason)}).text = _xml(reason)


def _xml(text: str) -> str:
    """What strangers wrote, without the characters that XML 1.0 has no way to write."""
    return NOT_XML.sub("\ufffd", text)


def _cell(text: str) -> str:
    """On one line, and with no meaning in Markdown."""
    return re.sub(r"([\\`*_{}\[\]<>|#!~])", r"\\\1", " ".join(text.split()))
