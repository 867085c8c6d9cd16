"""The door to the suites: :func:`run_suite` measures what a :class:`Request` says and writes one run file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dmasync.harness.bench.runner import LostRunError, run_on
from dmasync.harness.bench.targets import FAKE, VM, WALL_IN_EMULATOR, Request, choose
from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.progress import Progress, SilentProgress
from dmasync.harness.runs.writing import refuse_unwritable
from dmasync.harness.vm.cache import CacheError

__all__ = ["LostRunError", "Request", "run_suite"]


def run_suite(request: Request, output: Path, progress: Progress | None = None) -> ExitStatus:
    """Measure and write *output*, whole or not at all.

    GOOD, or REGRESSION where a row failed by a defect; *output* then has the others. Raises CommandError: 2 for what
    cannot be asked for, 3 where nothing was measured, 4 where the target is not here, and what the virtual machine
    raises; :class:`LostRunError` (2), which has the run, where *output* cannot be written any more.
    """
    progress = progress or SilentProgress()
    request.check()
    refuse_unwritable({"--output": output})
    chosen = choose(request)
    measures_wall_in_emulator = chosen.target == VM and chosen.asked_for and not request.exact
    hint = f"; {WALL_IN_EMULATOR}" if measures_wall_in_emulator else ""
    progress.note(f"target {chosen.target}: {chosen.reason}{hint}")
    if chosen.asked_for or chosen.target != VM:
        return run_on(chosen.target, request, output, progress)
    # Nobody asked for wall time, and in an emulator it says nothing.
    try:
        return run_on(VM, replace(request, exact=True), output, progress)
    except CommandError as error:
        # As dmasync probe has it: without a cache there is no virtual machine.
        if error.status != ExitStatus.SKIPPED and not isinstance(error, CacheError):
            raise
        progress.done()
        progress.note(f"target {FAKE}: no virtual machine here: {error}")
        return run_on(FAKE, request, output, progress)
