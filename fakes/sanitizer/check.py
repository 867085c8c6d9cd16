"""The front door: collect what is known, analyse it, complain."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from dmasync.fakes.arguments import listed
from dmasync.fakes.journal import Call, Journal
from dmasync.fakes.journal.words import buffer_names
from dmasync.fakes.sanitizer.analysis import Analysis
from dmasync.fakes.sanitizer.finding import KINDS, Finding


class Sanitizer:
    """Checks a journal, or a recorder's (any backend with a ``journal``), live or recorded.

    The journal alone tells about windows, descriptors and overlaps. What bytes were touched is known where the memory
    was watched: ``FakeBackend(coherent=False)``, ``FakeBackend(watch=True)``. Stacks are there if they were recorded.

    *allow* names kinds of findings (see KINDS) that are left out. With *leaks* False, descriptors and mappings may be
    open still, as in the middle of a program.
    """

    def __init__(self, source: Any, *, allow: Iterable[str] = (), leaks: bool = True) -> None:
        if not isinstance(getattr(source, "journal", source), Journal):
            raise TypeError(f"source must be a Journal or a backend that writes one, not {source!r}")
        self._source = source
        self._allow = frozenset(listed(allow, "allow", "kinds of findings"))
        unknown = sorted(self._allow - set(KINDS))
        if unknown:
            raise ValueError(f"allow names {unknown[0]!r}, which is no finding: there are {', '.join(KINDS)}")
        self._leaks = leaks

    @property
    def journal(self) -> Journal:
        """What is checked."""
        source = self._source
        return source if isinstance(source, Journal) else source.journal

    def findings(self) -> list[Finding]:
        """Everything that is wrong so far, in the order in which it happened; equal ones at one place are one."""
        settle = getattr(self._source, "settle", None)
        if settle is not None:
            settle()
        analysis = Analysis(self.journal)
        found = analysis.run()
        if self._leaks:
            found += analysis.leaked_descriptors()
            found += analysis.leaked_mappings(self._open_mappings())
        names = buffer_names(self.journal)
        return [
            dataclasses.replace(finding, name=names.get(finding.buffer, "")) if finding.buffer in names else finding
            for finding in _folded(found)
            if finding.kind not in self._allow
        ]

    def _open_mappings(self) -> list[Call]:
        find = getattr(self._source, "open_mappings", None)
        if find is not None:
            return find()  # type: ignore[no-any-return]
        journal = self.journal
        listed = journal.facts.get("open_mappings", [])
        return [journal.calls[index] for index in listed if isinstance(index, int) and 0 <= index < len(journal.calls)]

    def check(self) -> None:
        """AssertionError with every finding and the end of the timeline, if there is any finding."""
        found = self.findings()
        if found:
            raise AssertionError(self.report(found))

    def report(self, found: list[Finding]) -> str:
        """What :meth:`check` says."""
        count = "1 finding" if len(found) == 1 else f"{len(found)} findings"
        listed = "\n\n".join(str(finding) for finding in found)
        return f"{count}:\n\n{listed}\n\nthe last entries of the journal:\n{self.journal.timeline(30)}"


def _folded(found: list[Finding]) -> list[Finding]:
    places: dict[object, int] = {}
    result: list[Finding] = []
    for finding in found:
        key = (finding.kind, finding.buffer, tuple(trace.stack for trace in finding.traces))
        if key in places and any(trace.stack for trace in finding.traces):
            first = result[places[key]]
            result[places[key]] = dataclasses.replace(first, times=first.times + 1)
        else:
            places[key] = len(result)
            result.append(finding)
    return result
