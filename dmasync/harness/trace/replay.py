"""``dmasync replay``: run a recorded journal against the fake kernel, and check it."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from dmasync.harness.console import counted
from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.option_types import given_text
from dmasync.harness.run.outputs import Outputs

if TYPE_CHECKING:
    from dmasync.fakes.journal import Journal
    from dmasync.fakes.replay import Difference, Replay
    from dmasync.fakes.sanitizer import Finding


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``dmasync replay``."""
    parser.add_argument("trace", metavar="TRACE", help="what dmasync record wrote")
    parser.add_argument("--json", action="store_true", help="print differences and findings as JSON")
    parser.add_argument(
        "--allow", metavar="KIND", type=given_text, action="append", default=[], help="leave out findings of this kind"
    )
    parser.add_argument(
        "--leaks",
        action="store_true",
        help="descriptors that are open at the end are findings, too; without this as in the run that was recorded: "
        "not for a program that dmasync run or record ran without --leaks, as the kernel closes what it leaves",
    )
    parser.add_argument("--timeline", metavar="LINES", type=int, default=0, help="print so much of the timeline")
    parser.add_argument("--perfetto", metavar="FILE", type=given_text, help="write a trace for Perfetto")
    parser.add_argument("--sarif", metavar="FILE", type=given_text, help="write the findings as SARIF")
    parser.add_argument("--svg", metavar="FILE", type=given_text, help="write a chart of buffers and windows")


def run(options: argparse.Namespace) -> int:
    """Replay and check; 1 for a difference or a finding, 3 when no call could be played and nothing was found."""
    # A file that cannot be written must not take the verdict with it: before anything is judged.
    files = Outputs({f"--{name}": getattr(options, name) for name in ("perfetto", "sarif", "svg")}, [options.trace])
    journal = _load(options.trace)
    from dmasync.fakes.replay import Replay
    from dmasync.fakes.sanitizer import Sanitizer

    try:
        sanitizer = Sanitizer(journal, allow=options.allow, leaks=options.leaks or journal.facts.get("leaks", True))
    except ValueError as problem:
        raise CommandError(str(problem)) from None
    replay = Replay(journal)
    differences = replay.run()
    findings = sanitizer.findings()
    if options.json:
        _out(json.dumps(_facts(journal, replay, differences, findings), indent=2))
    else:
        _say(journal, replay, differences, findings, options.timeline)
    files.write(journal, findings)  # behind what was found, which stands without them
    if not replay.played:
        why = "no call of the trace could be played" if _recorded(replay) else "the trace holds no call"
        what = "compared with the fake" if _is_checked(journal) else "judged"
        sys.stderr.write(f"dmasync replay: {why}: nothing was {what}\n")
        return ExitStatus.REGRESSION if findings else ExitStatus.CANNOT_JUDGE
    return ExitStatus.REGRESSION if differences or findings else ExitStatus.GOOD


def _load(path: str) -> Journal:
    from dmasync.fakes.journal import Journal

    try:
        return Journal.load(path)
    except OSError as error:
        raise CommandError(f"TRACE {path!r} cannot be read: {error.strerror}") from None
    except ValueError as problem:
        raise CommandError(f"TRACE {path!r} is unusable: {problem}") from None


def _say(
    journal: Journal, replay: Replay, differences: list[Difference], findings: list[Finding], timeline: int
) -> None:
    kernel = journal.facts.get("kernel", "an unnamed kernel")
    cut = "" if journal.facts.get("complete") else ", cut off: read up to the last whole line"
    why_not = (
        (replay.skipped, "on descriptors from elsewhere"),
        (replay.told_nothing, "that tell nothing of a kernel"),
    )
    left_out = ", ".join(f"{count} {why}" for count, why in why_not if count)
    calls = counted(_recorded(replay), "call")
    _out(f"{calls} recorded on {kernel}{cut}{f'; not played: {left_out}' if left_out else ''}")
    if replay.played:  # a count of nothing would read as a good answer
        for difference in differences:
            _out(f"difference: {difference}")
        _out(f"differences: {len(differences)}")
    if replay.played or _is_checked(journal):
        for finding in findings:
            _out(f"\n{finding}")
        _out(f"findings: {len(findings)}")
    if timeline:
        _out(journal.timeline(timeline))


def _is_checked(journal: Journal) -> bool:
    """Whether there were windows to check; those on a descriptor from elsewhere are checked, too."""
    return bool(journal.attempts)


def _recorded(replay: Replay) -> int:
    """As many as ``dmasync record`` said that it wrote."""
    return replay.played + replay.skipped + replay.told_nothing


def _facts(journal: Journal, replay: Replay, differences: list[Difference], findings: list[Finding]) -> dict[str, Any]:
    return {
        "facts": journal.facts,
        "calls": replay.played,
        "recorded": _recorded(replay),
        "skipped": replay.skipped,
        "differences": [
            {"position": d.position, "what": d.what, "recorded": d.recorded, "fake": d.fake} for d in differences
        ],
        "findings": [
            {
                "kind": finding.kind,
                "buffer": finding.buffer,
                "step": finding.step.name if finding.step else None,
                "message": finding.message,
                "consequence": finding.consequence,
                "fix": finding.fix,
                "mending": finding.fix,  # its name until version 0.2
                "bytes": [list(span) for span in finding.ranges],
                "times": finding.times,
                "traces": [
                    {"what": trace.what, "stack": [list(frame) for frame in trace.stack]} for trace in finding.traces
                ],
            }
            for finding in findings
        ],
    }


def _out(value: object) -> None:
    sys.stdout.write(f"{value}\n")
