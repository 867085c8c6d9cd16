"""The operations on windows: syncers, groups, access to a buffer's bytes."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import Any

from dmasync import DmaSyncer, DmaSyncerGroup, DmaSyncError, RetryPolicy, SyncType, uapi
from tests.support.points.explore import Operation, Step
from tests.support.points.world import World

POLICIES = {
    "": {},
    ", at most 3 attempts": {"retry": RetryPolicy(max_attempts=3)},
    ", a deadline": {"retry": RetryPolicy(deadline=60.0)},
    ", on_error log": {"on_error": "log"},
}

REFUSALS: dict[str, tuple[tuple[str, int, int], ...]] = {
    "": (),
    ", START interrupted twice": (("START", errno.EINTR, 2),),
    ", START busy until it sleeps": (("START", errno.EAGAIN, 18),),
    ", END interrupted and START busy": (("START", errno.EAGAIN, 1), ("END", errno.EINTR, 2)),
}

GONE: dict[str, tuple[tuple[str, int, int], ...]] = {
    ", START refused": (("START", errno.ENODEV, 1),),
    ", END refused": (("END", errno.EIO, 1),),
}

Make = Callable[[World, dict[str, Any]], tuple[Callable[[], Any], tuple[int, ...]]]
"""What makes a window, and the numbers of the files that it is over."""


class BodyError(Exception):
    """What the body of a window raises by itself."""


def sync(step: str) -> tuple[int, bytearray]:
    """Request and argument of an ioctl that makes *step*, "START" or "END", without the library."""
    flags = uapi.DMA_BUF_SYNC_READ | (uapi.DMA_BUF_SYNC_END if step == "END" else uapi.DMA_BUF_SYNC_START)
    return uapi.DMA_BUF_IOCTL_SYNC, uapi.dma_buf_sync.pack(flags)


def _syncer(world: World, options: dict[str, Any]) -> tuple[Callable[[], Any], tuple[int, ...]]:
    number = world.memfd()
    return lambda: DmaSyncer(number, SyncType.READ, backend=world.backend, **options), (number,)


def _group(world: World, options: dict[str, Any]) -> tuple[Callable[[], Any], tuple[int, ...]]:
    numbers = tuple(world.memfd() for _ in range(3))
    targets = list(zip(numbers, (SyncType.READ, SyncType.WRITE, SyncType.READ), strict=True))
    return lambda: DmaSyncerGroup(targets, backend=world.backend, **options), numbers


def _access(world: World, options: dict[str, Any]) -> tuple[Callable[[], Any], tuple[int, ...]]:
    buffer = world.buffer()
    with buffer.cpu_access(SyncType.WRITE):  # maps it, once for all windows
        pass
    return lambda: buffer.cpu_access(SyncType.WRITE, **options), (buffer.fileno(),)


KINDS: dict[str, Make] = {"DmaSyncer": _syncer, "DmaSyncerGroup": _group, "cpu_access": _access}


def _fresh(make: Callable[[], Any]) -> Step:
    def step() -> None:
        with make():
            pass

    return step


def _reused(make: Callable[[], Any]) -> Step:
    window = make()

    def step() -> None:
        with window:
            pass

    return step


def _raising(make: Callable[[], Any]) -> Step:
    window = make()

    def step() -> None:
        with window:
            raise BodyError

    return step


def _returning(make: Callable[[], Any]) -> Step:
    window = make()

    def step() -> object:
        for _ in range(2):
            with window:
                return 1
        return 0

    return step


def _by_hand(make: Callable[[], Any]) -> Step:
    window = make()

    def step() -> None:
        window.start()
        window.end()

    return step


def _in_finally(make: Callable[[], Any]) -> Step:
    window = make()

    def step() -> None:
        try:
            window.start()
        finally:
            window.end()

    return step


def _moved(make: Callable[[], Any]) -> Step:
    def step() -> None:
        window = make()
        window.start()
        heir = window.move()
        window.end()
        heir.end()

    return step


def _moved_in_the_block(make: Callable[[], Any]) -> Step:
    def step() -> None:
        with make() as window:
            heir = window.move()
        heir.end()

    return step


def _dropped(make: Callable[[], Any]) -> Step:
    def step() -> None:
        window = make()
        window.start()
        del window

    return step


def _assigned_over(make: Callable[[], Any]) -> Step:
    def step() -> None:
        window = make()
        window.start()
        window = make()
        window.start()
        window.end()

    return step


def _nested(make: Callable[[], Any]) -> Step:
    def step() -> None:
        with make(), make():
            pass

    return step


def _prepare(
    kind: str, shape: Callable[[Callable[[], Any]], Step], options: dict[str, Any], refusals: Any
) -> Callable[[World], Step]:
    def prepare(world: World) -> Step:
        if kind == "cpu_access":
            world.count_mappings()
        make, files = KINDS[kind](world, options)
        made: list[Any] = []

        def remembered() -> Any:
            made.append(make())
            return made[-1]

        # What the preparation makes is used again afterwards; what the step makes is dropped.
        step = shape(remembered if shape in _KEPT else make)
        if kind != "cpu_access":
            for window in made:
                world.watch(window, *files)
        for step_, code, times in refusals:
            world.refuse(step_, code, times, after=1 if kind == "DmaSyncerGroup" else 0)
        return step

    return prepare


_KEPT = (_reused, _raising, _returning, _by_hand, _in_finally)


def operations() -> Iterator[Operation]:
    for kind in KINDS:
        for policy, options in POLICIES.items():
            if kind != "cpu_access":
                yield Operation(f"{kind} reused{policy}", _prepare(kind, _reused, options, ()), block=True)
            yield Operation(f"{kind} fresh{policy}", _prepare(kind, _fresh, options, ()), block=True)
        for name, refusals in REFUSALS.items():
            for policy in ("", ", a deadline") if name else ():
                prepare = _prepare(kind, _fresh, POLICIES[policy], refusals)
                yield Operation(f"{kind} fresh{name}{policy}", prepare, block=True)
        for name, refusals in GONE.items():
            yield Operation(f"{kind} fresh{name}", _prepare(kind, _fresh, {}, refusals), DmaSyncError, block=True)
            prepare = _prepare(kind, _fresh, {"on_error": "log"}, refusals)
            yield Operation(f"{kind} fresh{name}, on_error log", prepare, block=True)
        if kind != "DmaSyncerGroup":  # it has no move()
            yield Operation(f"{kind} moved", _prepare(kind, _moved, {}, ()))
        yield Operation(f"{kind} dropped", _prepare(kind, _dropped, {}, ()))
        yield Operation(f"{kind} assigned over", _prepare(kind, _assigned_over, {}, ()))
        yield Operation(f"{kind} nested", _prepare(kind, _nested, {}, ()), block=True)
        if kind == "DmaSyncer":
            yield Operation(f"{kind} moved in the block", _prepare(kind, _moved_in_the_block, {}, ()))
        if kind != "cpu_access":
            yield Operation(f"{kind} start() and end()", _prepare(kind, _by_hand, {}, ()))
            yield Operation(f"{kind} start(), end() in finally", _prepare(kind, _in_finally, {}, ()))
            yield Operation(f"{kind} returned from", _prepare(kind, _returning, {}, ()), block=True)
            yield Operation(f"{kind} exception in the body", _prepare(kind, _raising, {}, ()), BodyError, block=True)
            prepare = _prepare(kind, _raising, {}, GONE[", END refused"])
            yield Operation(f"{kind} exception in the body, END refused", prepare, BodyError, block=True)
