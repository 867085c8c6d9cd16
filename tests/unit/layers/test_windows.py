"""Which START an END ends: one rule, seen alike by journal, pictures, sanitizer and watched memory."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import product

import pytest

from dmasync import Step, SyncType
from dmasync.fakes import FakeBackend, Journal, Sanitizer
from dmasync.fakes.journal.entries import ROW
from dmasync.fakes.journal.windows import ended_by, paired
from tests.unit.layers.test_injector import SYNC, edge, heap_buffer

READ, WRITE, BOTH = SyncType.READ, SyncType.WRITE, SyncType.READ_WRITE
START, END = Step.START, Step.END
ME, OTHER = 1, 2

Attempt = tuple[Step, SyncType, int]
"""A step, its access, its thread."""


def journal(*attempts: Attempt, buffer: int = 7) -> Journal:
    result = Journal()
    for place, (step, access, thread) in enumerate(attempts):
        result.rows += ROW.pack(place, buffer, step.value | access.value, thread, 3, 0, place, 0)
    return result


def sequences(pairs: Sequence[object]) -> list[tuple[int, int | None]]:
    return [(w.start.sequence, None if w.end is None else w.end.sequence) for w in pairs]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("attempts", "ended"),
    [
        pytest.param([(START, READ, ME), (START, READ, ME)], 1, id="the latest of equal ones"),
        pytest.param([(START, READ, ME), (START, READ, OTHER)], 0, id="its own thread's before a later one"),
        pytest.param([(START, READ, OTHER), (START, WRITE, ME)], 0, id="the same access before its own thread's"),
        pytest.param([(START, BOTH, ME), (START, WRITE, OTHER)], 0, id="its own thread's where no access is the same"),
        pytest.param([(START, BOTH, OTHER), (START, WRITE, OTHER)], 1, id="the latest where nothing is the same"),
    ],
)
def test_an_end_ends(attempts, ended):
    pairs = paired(journal(*attempts, (END, READ, ME)).attempts)
    assert [place for place, window in enumerate(pairs.windows) if window.end is not None] == [ended]
    assert pairs.unmatched_ends == ()


def test_an_end_without_a_window_is_unmatched_and_ends_no_later_one():
    pairs = paired(journal((END, READ, ME), (START, READ, ME)).attempts)
    assert sequences(pairs.windows) == [(1, None)]
    assert [end.sequence for end in pairs.unmatched_ends] == [0]
    assert ended_by(READ, ME, ()) is None


def test_windows_of_other_buffers_and_refused_attempts_count_for_nothing():
    log = journal((START, READ, ME))
    log.rows += ROW.pack(1, 8, START.value | READ.value, ME, 3, 0, 1, 0)
    log.rows += ROW.pack(2, 8, END.value | READ.value, ME, 3, 0, 2, 4)  # EINTR
    log.rows += ROW.pack(3, 7, END.value | READ.value, ME, 3, 0, 3, 0)
    assert sequences(log.pairs.windows) == [(0, 3), (1, None)]
    assert paired(log.attempts) == log.pairs


def test_every_view_of_two_threads_windows_pairs_them_alike():
    """All orders of two STARTs and two ENDs of two threads, with accesses that are the same or not."""
    for accesses in product((READ, WRITE), repeat=4):
        for ends in ((ME, OTHER), (OTHER, ME), (ME, ME)):
            attempts = [
                (START, accesses[0], ME),
                (START, accesses[1], OTHER),
                (END, accesses[2], ends[0]),
                (END, accesses[3], ends[1]),
            ]
            log = journal(*attempts)
            pairs = sequences(log.pairs.windows)
            assert {end for _, end in pairs} == {2, 3}
            drawn = [
                (event["args"]["start"], event["args"]["end"])
                for event in log.to_trace()["traceEvents"]
                if event.get("cat") == "window"
            ]
            assert sorted(drawn) == pairs
            wrong = {
                tuple(int(trace.what.partition(" ")[0][1:]) for trace in finding.traces)
                for finding in Sanitizer(log).findings()
                if finding.kind == "end-with-other-access"
            }
            assert wrong == {(start, end) for start, end in pairs if attempts[start][1] != attempts[end][1]}


def test_watched_memory_keeps_the_window_that_the_journal_says_is_open():
    backend = FakeBackend(watch=True)
    fd = heap_buffer(backend)
    backend.ioctl(fd, SYNC, edge(START, READ))

    def other_thread() -> None:
        backend.ioctl(fd, SYNC, edge(START, READ))

    thread = threading.Thread(target=other_thread)
    thread.start()
    thread.join()
    backend.ioctl(fd, SYNC, edge(END, READ))
    (left,) = backend.journal.open_windows
    assert left.thread != threading.get_ident()
    (open_,) = backend.kernel.buffer_of(fd).memory._windows
    assert (open_.access, open_.thread) == (left.access, left.thread)
