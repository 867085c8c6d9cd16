"""Which kept runs may go. A damaged file never does: somebody may still want to know what happened."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta

from dmasync.harness.runs.kept import KeptRun, Kind


def prunable(
    kept: Iterable[KeptRun], *, keep: int | None, older_than: timedelta | None, now: datetime
) -> list[KeptRun]:
    """The runs that both rules let go; a rule of None lets all go, so give one.

    *keep* spares the newest that many of each kind, *older_than* whatever is younger. The newest good run of a
    kind is always spared, it is the baseline, and so is the newest anchor.
    """
    by_kind: dict[Kind, list[KeptRun]] = defaultdict(list)
    for one in sorted(kept, key=lambda kept: kept.moment):
        if one.kind is not None:
            by_kind[one.kind].append(one)
    gone = []
    for runs in by_kind.values():
        baselines = [one for one in runs if one.standing.is_baseline]
        anchors = [one for one in runs if one.standing.is_anchor]
        spared_always = [*baselines[-1:], *anchors[-1:]]
        newest = runs[len(runs) - keep :] if keep else []
        for one in runs:
            spared = one in newest or any(one is other for other in spared_always)
            young = older_than is not None and now - one.moment < older_than
            if not spared and not young:
                gone.append(one)
    return gone
