"""What a person or a Buildbot step sees of a run: one line an event, with the time of day."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from oscar_steps.testdriver.record.events import Event
from oscar_steps.textio import printable
from oscar_steps.words import MARK, Outcome

if TYPE_CHECKING:
    from oscar_steps.verdict import InstallReport, Verdict


def plain(event: Event) -> None:
    """For logs and pipes. `@@oscar {json}` lines are for the master, which shows a live summary of the step."""
    for line in event.text.splitlines():
        print(f"{event.stamp[11:19]} {printable(line)}", flush=True)
    if summary := event.data.get("summary"):
        print(f"{MARK}{json.dumps({'summary': summary})}", flush=True)


def summary_lines(verdict: Verdict) -> list[str]:
    """The verdict in a few lines: result, cause, evidence, nodes, time a stage, how to do it again."""
    lines = [f"{verdict.outcome.upper()}: {verdict.sentence}"]
    if verdict.outcome is not Outcome.PASSED:
        where = f"{verdict.stage or 'before the first stage'}" + (
            f" (OSCAR's stage {verdict.oscar_stage})" if verdict.oscar_stage else ""
        )
        lines.append(f"  stage:    {where}")
        if verdict.category:
            lines.append(f"  blame:    {verdict.category}")
    if verdict.hint:
        lines.append(f"  hint:     {verdict.hint}")
    for evidence in verdict.evidence:
        lines.append(f"  evidence: {evidence.file}:{evidence.first_line}-{evidence.last_line}")
        lines += [f"    | {line}" for line in evidence.lines[-12:]]
    if verdict.image:
        lines.append(f"  image:    {verdict.image.key[:12]}")
    for node in verdict.nodes:
        lines.append(f"  node:     {node.name}: {node.state} since {node.since:.0f} s")
    if verdict.installer:
        lines.append(f"  OSCAR:    {', '.join(_install_words(report) for report in verdict.installer)}")
    for report in verdict.stages:
        lines.append(f"  {report.stage:<14} {report.result:<14} {report.seconds:7.1f} s")
    lines += [f"  in all {verdict.seconds:.0f} s", f"  again:    {verdict.replay}"]
    return [printable(line) for line in lines]


def _install_words(report: InstallReport) -> str:
    words = "" if report.result == "passed" else f" {report.result}"
    return f"{report.stage}{words}" + ("" if report.seconds is None else f" {report.seconds:.0f} s")
