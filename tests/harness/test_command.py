"""What the command itself sees to: signals, and what it loads."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dmasync import cli
from dmasync.harness import signals
from dmasync.harness.probe import command as probe
from dmasync.harness.progress import ConsoleProgress

OLD = Path(__file__).parent / "gate" / "run_of_the_first_version.json"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_handler_is_the_commands_and_is_put_back(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    def ended(options: object) -> int:
        os.kill(os.getpid(), number)
        raise AssertionError("it went on")

    def own(number: int, frame: object) -> None:
        raise AssertionError("the caller's handler was asked")

    monkeypatch.setattr(probe, "run", ended)
    before = signal.signal(number, own)
    try:
        with pytest.raises(SystemExit) as unwound:
            cli.main(["probe"])
        assert unwound.value.code == 128 + number
        assert signal.getsignal(number) is own
    finally:
        signal.signal(number, before)


def test_a_signal_that_is_ignored_stays_so_as_nohup_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(options: object) -> int:
        os.kill(os.getpid(), signal.SIGHUP)
        return 4

    monkeypatch.setattr(probe, "run", told)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert cli.main(["probe"]) == 4
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_handler_that_python_does_not_know_becomes_the_systems_own(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGHUP)
    monkeypatch.setattr(signals.signal, "getsignal", lambda number: None)
    try:
        with signals.answering(lambda number, frame: None):
            pass
    finally:
        monkeypatch.undo()
        found = signal.signal(signal.SIGHUP, before)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert found is signal.SIG_DFL


def test_the_command_works_in_a_thread_that_may_set_no_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "run", lambda options: 4)
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(cli.main(["probe"])))
    thread.start()
    thread.join()
    assert found == [4]


def test_a_gate_that_has_no_wall_rows_does_not_wait_for_the_statistics() -> None:
    program = (
        "import sys\n"
        "from dmasync import cli\n"
        f"assert cli.main(['gate', {str(OLD)!r}, {str(OLD)!r}]) == 0\n"
        "print(sorted(name for name in sys.modules if name.partition('.')[0] in ('scipy', 'matplotlib')))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_progress_is_plain_lines_where_escape_sequences_are_not_wanted(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv(name, value)
    with ConsoleProgress("dmasync vm") as progress:
        progress.phase("booting")
        progress.phase("measuring")
    assert terminal.getvalue() == "dmasync vm: booting\ndmasync vm: measuring\n"
