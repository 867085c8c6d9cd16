"""Release numbers, and since which of them a behaviour is there: on the main line, and in updates of older lines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

Line = tuple[int, int]
"""A line of releases: (6, 12) is 6.12 with all its stable updates."""

NEWEST = 1 << 30
"""The update that stands for "the newest of its line": later than any number."""
_NUMBER = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?(?![\d.])")


@dataclass(frozen=True, order=True)
class Release:
    """One kernel release, such as 6.12.117; without a third number, the newest of its line."""

    line: Line
    update: int = NEWEST

    @classmethod
    def parse(cls, text: str) -> Release | None:
        """The release that *text* begins with, as ``uname -r`` or a person writes it; None where it does not.

        What follows the number (``-rc3``, ``+deb13-amd64``) says nothing about behaviour and is ignored.
        """
        found = _NUMBER.match(text)
        if found is None:
            return None
        major, minor, update = found.groups()
        return cls((int(major), int(minor)), NEWEST if update is None else int(update))

    def __str__(self) -> str:
        number = ".".join(map(str, self.line))
        return number if self.update == NEWEST else f"{number}.{self.update}"


@dataclass(frozen=True)
class Since:
    """Since which release a behaviour is there: from *line* on, and from an update on in some older *lines*."""

    line: Line
    updates: Mapping[Line, int] = field(default_factory=dict)
    """For an older line, its first update that has it; for *line* or a later one, the first of its updates."""

    @classmethod
    def of(cls, first: str, *updates: str) -> Since:
        """``Since.of("6.17", "6.12.93")``: from 6.17 on, and in 6.12 from its 93rd update on."""
        release = Release.parse(first)
        assert release is not None  # noqa: S101 - written in this project
        later = [Release.parse(text) for text in updates]
        table = {update.line: update.update for update in later if update is not None}
        if release.update != NEWEST:
            table[release.line] = release.update
        return cls(release.line, table)

    def __contains__(self, release: Release) -> bool:
        first = self.updates.get(release.line)
        return release.line >= self.line if first is None else release.update >= first
