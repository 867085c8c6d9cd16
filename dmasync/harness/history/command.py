"""The arguments of ``dmasync history``: list, prune, keep, nightly; those over a store are in :mod:`in_store`."""

from __future__ import annotations

import argparse
import contextlib
import functools
from datetime import datetime, timedelta, timezone

from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.gate.outputs.destinations import Outputs
from dmasync.harness.history import accepting, in_store
from dmasync.harness.history.acceptances import load
from dmasync.harness.history.listing import print_kept
from dmasync.harness.history.prune import prunable
from dmasync.harness.option_types import given_path, given_text
from dmasync.harness.runs.kept import Standing
from dmasync.harness.runs.reading import Run, load_run, printable
from dmasync.harness.runs.storage import Storage, default_folder, named_by_variable
from dmasync.harness.runs.writing import made_folder, no_empty_folder
from dmasync.harness.store.bucket import left_as_found, store_folder


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``dmasync history``."""
    _add_storage(parser, None)
    parser.set_defaults(action="list", json=False)
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    listing = actions.add_parser("list", help="what was kept, damaged files named (the default)")
    listing.add_argument("--json", action="store_true", help="for a program")
    pruning = actions.add_parser("prune", help="remove old runs; the last good one of a kind stays")
    pruning.add_argument("--keep", metavar="N", type=int, help="spare the newest N of each kind")
    pruning.add_argument("--older-than", metavar="DAYS", type=float, help="spare what is younger")
    pruning.add_argument("--dry-run", action="store_true", help="only say what would go")
    keeping = actions.add_parser("keep", help="put a run file into the storage")
    keeping.add_argument("run_file", metavar="RUN", type=given_text)
    keeping.add_argument(
        "--good", action="store_true", help="later nights are judged against it (default: it is not judged)"
    )
    keeping.add_argument(
        "--anchor", action="store_true", help="as --good, and what later nights may not creep away from"
    )
    night = actions.add_parser("nightly", help="measure, judge against the last good run and the anchor, keep, report")
    night.add_argument(
        "--report", metavar="FILE", type=given_path, help="the HTML page to write (default: report.html in the storage)"
    )
    night.add_argument(
        "--bench", metavar="ARG", action="append", default=[], help="an argument for dmasync bench; may be repeated"
    )
    night.add_argument(
        "--store", metavar="STORE", type=given_text, help="add the run to this store of Parquet files, too"
    )
    Outputs.add_arguments(night.add_argument_group("where the verdicts go, besides standard output"))
    # Before or behind the action; a default here would replace what stands before it.
    add_storage = functools.partial(_add_storage, default=argparse.SUPPRESS)
    on_storage = [listing, pruning, keeping, night, *accepting.configure(actions)]
    for action in on_storage:
        add_storage(action)
    for action in (*on_storage, *in_store.configure(actions, add_storage)):
        action.set_defaults(parser=action)


def _add_storage(parser: argparse.ArgumentParser, default: str | None) -> None:
    parser.add_argument(
        "--storage",
        metavar="DIR",
        type=given_path,
        default=default,
        help="where the runs are (default: $DMASYNC_STORAGE, else .benchmarks)",
    )


def run(options: argparse.Namespace) -> int:
    """List, prune or keep, or take one night's run."""
    storage = Storage(options.storage or default_folder())
    if storage.folder.exists() and not storage.folder.is_dir():
        raise CommandError(f"{storage.folder}: is not a folder")
    named = "--storage" if options.storage is not None else named_by_variable()
    if options.action in ("list", "prune") and named and not storage.folder.is_dir():
        raise CommandError(f"{named} {storage.folder}: no such folder")
    if options.action == "prune":
        return _prune(storage, options.keep, options.older_than, options.dry_run)
    if options.action == "keep":
        standing = Standing.ANCHOR if options.anchor else Standing.GOOD if options.good else Standing.UNJUDGED
        kept = storage.keep_once(_run_with_rows(options.run_file), standing)
        print(kept)  # noqa: T201
        return ExitStatus.GOOD
    if options.action == "nightly":
        return _nightly(storage, options)
    if options.action in accepting.ACTIONS:
        return accepting.run(options, storage)
    if options.action in in_store.ACTIONS:
        return in_store.run(options, storage)
    print_kept(storage, as_json=options.json)
    return ExitStatus.GOOD


def _nightly(storage: Storage, options: argparse.Namespace) -> int:
    # What measures and draws takes half a second to load: a list does not wait for it.
    from dmasync.harness.bench import command as bench
    from dmasync.harness.history import nightly

    asked = bench.parse(options.bench)
    measure = functools.partial(nightly.measure_host, request=bench.request_of(asked), quiet=asked.quiet)
    report = options.report or storage.folder / "report.html"
    store = None if options.store is None else store_folder(options.store)
    with contextlib.ExitStack() as stack:
        stack.enter_context(no_empty_folder(storage.folder))
        if store is not None:
            stack.enter_context(left_as_found(store))
        made_folder(storage.folder)
        return nightly.nightly(storage, report, measure=measure, outputs=Outputs.of(options), store=store)


def _run_with_rows(path: str) -> Run:
    run = load_run(path)
    if not run.rows:
        raise CommandError(f"{printable(path)}: holds no rows: there is nothing to keep")
    return run


def _prune(storage: Storage, keep: int | None, days: float | None, dry_run: bool) -> int:
    if keep is None and days is None:
        raise CommandError("prune needs --keep N or --older-than DAYS: it removes nothing by itself")
    if keep is not None and keep < 0:
        raise CommandError(f"--keep is {keep}, expected at least 0")
    if days is not None and not 0 <= days < 1e6:
        raise CommandError(f"--older-than is {days}, expected days, at least 0")
    now = datetime.now(timezone.utc)
    accepted = [one for one in load(storage.folder).values() if one.in_force(now.date())]
    gone = prunable(storage.kept(), keep=keep, older_than=None if days is None else timedelta(days=days), now=now)
    gone = [one for one in gone if not any(acceptance.is_for(one, storage.folder) for acceptance in accepted)]
    if not gone:
        print("nothing to remove: each run is spared")  # noqa: T201
    for one in gone:
        print(f"{'would remove' if dry_run else 'removed'} {printable(one.path)}")  # noqa: T201
        if not dry_run:
            try:
                one.path.unlink(missing_ok=True)
            except OSError as error:
                raise CommandError(f"cannot remove {one.path}: {error.strerror}") from None
    return ExitStatus.GOOD
