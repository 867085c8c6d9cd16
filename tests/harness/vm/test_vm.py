"""The virtual runner with a stand-in for virtme-ng: what it promises however the guest behaves."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dmasync import cli
from dmasync.harness.exit_status import CommandError
from dmasync.harness.vm import host, host_packages
from dmasync.harness.vm.kernels import Kernel
from dmasync.harness.vm.machine import BootError, GuestDiedError, GuestTimeout, VirtualMachine
from tests.support import fake_host

DEADLINE_SECONDS = 60.0


@pytest.fixture
def programs(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    fake_host.install_virtual_machine(folder)
    monkeypatch.setattr(host, "search_path", lambda: f"{folder}:/usr/bin:/bin")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    return folder


@pytest.fixture
def kernel(tmp_path):
    image = tmp_path / "vmlinuz"
    image.write_bytes(fake_host.x86_image("6.12.0-fake"))
    return Kernel(image=image, release="6.12.0-fake", machine="x86_64", source=str(image))


def leftovers(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "tmp").iterdir())


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_for(condition):
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)
    return found


def test_status_output_and_kernel_of_the_command_come_back(programs, kernel, tmp_path):
    completed = VirtualMachine(kernel=kernel).run("echo out; echo err >&2; exit 7")
    assert (completed.returncode, completed.stdout, completed.stderr) == (7, "out\n", "err\n")
    assert completed.kernel_release == "6.12.0-fake"
    assert not leftovers(tmp_path)


def test_words_of_a_command_arrive_as_they_were(programs, kernel):
    words = ["two words", "it's", "$HOME", "a;b", "", "*"]
    completed = VirtualMachine(kernel=kernel).run(["printf", "<%s>", *words])
    assert completed.stdout == "".join(f"<{word}>" for word in words)


def test_output_goes_to_a_sink_instead_of_the_result(programs, kernel):
    out, err = io.BytesIO(), io.BytesIO()
    completed = VirtualMachine(kernel=kernel).run("printf x; printf y >&2", stdout=out, stderr=err)
    assert (out.getvalue(), err.getvalue(), completed.stdout, completed.stderr) == (b"x", b"y", "", "")


def test_output_that_is_not_text_does_not_hide_the_status(programs, kernel):
    completed = VirtualMachine(kernel=kernel).run(r"printf '\377'; exit 3")
    assert (completed.returncode, completed.stdout) == (3, "\\xff")


@pytest.mark.parametrize(
    ("behaviour", "error", "words"),
    [
        ("panics", BootError, ": [    0.8] Kernel panic - not syncing: no init"),
        ("cannot-mount", BootError, "could not mount /somewhere"),
        ("dies", GuestDiedError, "ended before its command did: [    9.9] reboot: Power down"),
    ],
)
def test_a_guest_that_fails_says_why_in_one_line(programs, kernel, tmp_path, monkeypatch, behaviour, error, words):
    monkeypatch.setenv("FAKE_GUEST", behaviour)
    with pytest.raises(error) as caught:
        VirtualMachine(kernel=kernel).run("true")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.status == 3
    assert not leftovers(tmp_path)


def test_an_image_that_lies_alone_and_does_not_boot_may_lack_its_modules(programs, kernel, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_GUEST", "panics")
    for known, hint in ({}, True), ({"config": tmp_path / "config"}, False), ({"modules": tmp_path}, False):
        with pytest.raises(BootError, match="did not boot") as caught:
            VirtualMachine(kernel=replace(kernel, **known)).run("true")
        assert ("its image lies alone: give the folder of its modules" in str(caught.value)) == hint


@pytest.mark.parametrize(
    ("behaviour", "error", "limit"),
    [
        ("hangs-at-boot", BootError, "boot_timeout"),
        ("hangs", GuestTimeout, "timeout"),
    ],
)
def test_a_guest_that_hangs_is_killed_with_all_it_started(
    programs, kernel, tmp_path, monkeypatch, behaviour, error, limit
):
    monkeypatch.setenv("FAKE_GUEST", behaviour)
    started = tmp_path / "pids"
    monkeypatch.setenv("FAKE_PIDS", str(started))
    # On a busy machine the limit may pass before the guest has begun to hang.
    for seconds in (1.0, 4.0, 16.0, 64.0):
        with pytest.raises((BootError, GuestTimeout)) as caught:
            VirtualMachine(kernel=kernel, **{limit: seconds}).run("true")
        if started.exists() and len(started.read_text(encoding="ascii").split()) == 2:
            break
    assert isinstance(caught.value, error)
    pids = [int(pid) for pid in started.read_text(encoding="ascii").split()]
    assert len(pids) == 2
    assert not [pid for pid in pids if is_running(pid)]
    assert not leftovers(tmp_path)


DRIVER = """
import signal, sys, tempfile
signal.signal(signal.SIGINT, signal.default_int_handler)
from dmasync import cli
from dmasync.harness.vm import host
host.search_path = lambda: sys.argv[1] + ":/usr/bin:/bin"
tempfile.tempdir = sys.argv[2]
sys.exit(cli.main(["vm", "--kernel", sys.argv[3], "--", "true"]))
"""


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_no_process_is_left_when_the_command_is_ended_by_a_signal(programs, kernel, tmp_path, number, status):
    pids_file = tmp_path / "pids"
    environment = {**os.environ, "FAKE_GUEST": "hangs", "FAKE_PIDS": str(pids_file)}
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(programs), str(tmp_path / "tmp"), str(kernel.image)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        pids = wait_for(
            lambda: pids_file.exists() and pids_file.read_text(encoding="ascii").endswith(" ") and pids_file
        )
        process.send_signal(number)
        assert process.wait(DEADLINE_SECONDS) == status
    for pid in pids.read_text(encoding="ascii").split():
        wait_for(lambda pid=pid: not is_running(int(pid)))
    if number != signal.SIGKILL:
        assert not leftovers(tmp_path)


def test_exact_mode_takes_chance_out_of_the_machine(programs, kernel, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_ARGUMENTS", str(tmp_path / "arguments"))
    VirtualMachine(kernel=kernel, exact=True, append=["swiotlb=force"]).run("true")
    words = (tmp_path / "arguments").read_text(encoding="utf-8").split("\0")
    clock = ("tsc_early_khz=1000000", "tsc=reliable", "hpet=disable", "pmtmr=0")
    for word in ("nokaslr", "norandmaps", "randomize_kstack_offset=off", *clock, "swiotlb=force"):
        assert f"--kopt={word}" in words
    assert "--qemu-opt=shift=0,sleep=off" in words
    assert words[words.index("--cpus") + 1] == "1"
    assert "--disable-kvm" in words


@pytest.mark.parametrize(
    ("machine", "given"), [({}, True), ({"cpus": 2}, True), ({"exact": True}, False), ({"kvm": True}, False)]
)
def test_a_guest_that_is_emulated_by_the_host_s_clock_does_not_check_its_timer(
    programs, kernel, tmp_path, monkeypatch, machine, given
):
    """A busy host makes that check panic. Exact integers, and the command lines with them, stay as they were."""
    monkeypatch.setenv("FAKE_ARGUMENTS", str(tmp_path / "arguments"))
    VirtualMachine(kernel=kernel, append=["last"], **machine).run("true")
    words = (tmp_path / "arguments").read_text(encoding="utf-8").split("\0")
    assert ("--kopt=no_timer_check" in words) is given
    assert [word for word in words if word.startswith("--kopt=")][-1] == "--kopt=last"


def test_an_arm64_guest_has_no_such_check(programs, kernel, tmp_path, monkeypatch):
    foreign = replace(kernel, machine="aarch64")
    line = VirtualMachine(kernel=foreign)._command_line("virtme-run", tmp_path, [], None)
    assert not [word for word in line if "no_timer_check" in word]


def test_kvm_is_used_only_where_it_is_asked_for(programs, kernel, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_ARGUMENTS", str(tmp_path / "arguments"))
    VirtualMachine(kernel=kernel, kvm=True).run("true")
    assert "--disable-kvm" not in (tmp_path / "arguments").read_text(encoding="utf-8").split("\0")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"exact": True, "cpus": 2}, "cpus is 2"),
        ({"exact": True, "kvm": True}, "kvm is on"),
        ({"cpus": 0}, "cpus is 0"),
        ({"timeout": 0}, "timeout is 0"),
        ({"append": ['a="b"']}, "append has"),
        ({"mount": [Path("/no/such/folder")]}, "mount /no/such/folder"),
    ],
)
def test_arguments_that_cannot_be_are_refused_before_anything_starts(
    programs, kernel, tmp_path, monkeypatch, wrong, words
):
    monkeypatch.setenv("FAKE_ARGUMENTS", str(tmp_path / "arguments"))
    with pytest.raises(CommandError, match=words) as caught:
        VirtualMachine(kernel=kernel, **wrong).run("true")
    assert caught.value.status == 2
    assert not (tmp_path / "arguments").exists()


def test_missing_programs_are_named_with_the_line_that_installs_them(programs, kernel):
    for name in ("qemu-system-x86_64", "busybox", "depmod", "file"):
        (programs / name).unlink()
    host.search_path = lambda: str(programs)  # the fixture puts it back
    with pytest.raises(host_packages.MissingPartError) as caught:
        VirtualMachine(kernel=kernel).run("true")
    assert caught.value.status == 4
    assert "apt-get install -y --no-install-recommends qemu-system-x86 kmod busybox-static file" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_busybox_that_needs_libraries_is_not_enough(programs, kernel):
    (programs / "busybox").unlink()
    (programs / "busybox").symlink_to("/bin/sh")
    assert [part.program for part in host_packages.missing_parts("x86_64")] == ["busybox"]


def test_setup_installs_what_is_missing_and_says_what(programs, tmp_path, monkeypatch, capsys):
    (programs / "busybox").unlink()
    fake_host.install_apt(programs)
    monkeypatch.setattr(host, "search_path", lambda: str(programs))
    monkeypatch.setattr(host_packages, "_elevation", list)
    for name, value in {"LOG": tmp_path / "apt.log", "BIN": programs}.items():
        monkeypatch.setenv({"LOG": "FAKE_APT_LOG", "BIN": "FAKE_BIN"}[name], str(value))
    monkeypatch.setenv("FAKE_INSTALLS", "busybox")
    (programs / "env").symlink_to("/usr/bin/env")
    from dmasync.harness.progress import ConsoleProgress

    assert host_packages.install_missing(ConsoleProgress("vm"), "x86_64") == ["busybox-static"]
    log = (tmp_path / "apt.log").read_text(encoding="utf-8").splitlines()
    assert log == ["-q update", "-q -y --no-install-recommends install busybox-static"]
    assert "installing with apt-get: busybox-static" in capsys.readouterr().err


def test_setup_without_the_right_to_install_says_what_to_type(programs, monkeypatch):
    (programs / "busybox").unlink()
    fake_host.install_apt(programs)
    monkeypatch.setattr(host, "search_path", lambda: str(programs))
    monkeypatch.setattr(host_packages, "_elevation", lambda: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    from dmasync.harness.progress import SilentProgress

    with pytest.raises(host_packages.MissingPartError, match=r"sudo sh -c .*busybox-static") as caught:
        host_packages.install_missing(SilentProgress(), "x86_64")
    assert caught.value.status == 4


def test_the_command_passes_output_and_status_on(programs, kernel, capfdbinary, tmp_path):
    result = tmp_path / "result.json"
    status = cli.main(["vm", "--kernel", str(kernel.image), "--result", str(result), "--", "printf out; exit 9"])
    assert status == 9
    captured = capfdbinary.readouterr()
    assert captured.out == b"out"
    assert b"booting 6.12.0-fake" in captured.err
    written = json.loads(result.read_text(encoding="utf-8"))
    assert (written["outcome"], written["returncode"], written["kernel"]) == ("exited", 9, "6.12.0-fake")


def test_a_failure_of_the_machine_is_told_apart_from_the_commands(programs, kernel, monkeypatch, capfd, tmp_path):
    monkeypatch.setenv("FAKE_GUEST", "panics")
    result = tmp_path / "result.json"
    assert cli.main(["vm", "--kernel", str(kernel.image), "--result", str(result), "--", "true"]) == 3
    assert "dmasync vm: kernel 6.12.0-fake did not boot" in capfd.readouterr().err
    written = json.loads(result.read_text(encoding="utf-8"))
    assert (written["outcome"], written["status"]) == ("BootError", 3)
    assert "Kernel panic" in written["console"]


@pytest.mark.parametrize("arguments", [[], ["--", ""], [" "], ["--env", "no equals", "--", "true"]])
def test_a_call_without_a_command_or_with_a_wrong_variable_is_unusable(programs, arguments, capfd):
    assert cli.main(["vm", *arguments]) == 2
    assert capfd.readouterr().err.count("\n") == 1


def test_environment_reaches_the_command(programs, kernel, tmp_path, monkeypatch):
    machine = VirtualMachine(kernel=kernel, environment={"COLOUR": "it's blue"})
    control = tmp_path / "control"
    control.mkdir()
    machine._write_scripts(control, "true", [])
    text = (control / "inside.sh").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith("env -i"))
    assignments = line.removeprefix("env -i ").partition(" /bin/sh ")[0]
    shown = subprocess.run(f"env -i {assignments} env", shell=True, capture_output=True, text=True, check=True).stdout  # noqa: S602
    assert "COLOUR=it's blue" in shown.splitlines()


def test_clean_removes_the_cache_and_says_what(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kept = tmp_path / "dmasync/kernels/x86_64/6.12.9"
    kept.mkdir(parents=True)
    assert cli.main(["vm", "--clean"]) == 0
    assert not kept.exists()
    assert str(kept) in capsys.readouterr().out


def test_a_reader_that_goes_away_ends_the_machine_quietly(programs, kernel, tmp_path):
    environment = {**os.environ, "FAKE_GUEST": "works"}
    program = DRIVER.replace('"--", "true"', '"--quiet", "--", "yes | head -c 1000000"')
    with subprocess.Popen(
        [sys.executable, "-c", program, str(programs), str(tmp_path / "tmp"), str(kernel.image)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout.read(2) == b"y\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(DEADLINE_SECONDS) == 128 + signal.SIGPIPE
    assert not leftovers(tmp_path)


SPLAT = (
    "[ 9.1] WARNING: CPU: 0 PID: 7 at drivers/dma-buf/udmabuf.c:1 f+0x1\n[ 9.2]  call\n[ 9.3] ---[ end trace 0 ]---\n"
)
KILLED = "[ 9.4] Out of memory: Killed process 9 (python3) total-vm:1kB\n"


@pytest.mark.parametrize(
    ("options", "line", "expected"),
    [([], "true", 0), (["--fail-on-warning"], "true", 1), (["--fail-on-warning"], "exit 7", 7)],
)
def test_a_kernel_that_warns_is_told_in_a_line_with_its_splat_in_the_result(
    programs, kernel, tmp_path, monkeypatch, capfd, options, line, expected
):
    monkeypatch.setenv("FAKE_KERNEL_LOG", SPLAT + KILLED)
    result = tmp_path / "result.json"
    call = ["vm", "--kernel", str(kernel.image), "--result", str(result), "--memory", "512M", *options, "--", line]
    assert cli.main(call) == expected
    said = [text for text in capfd.readouterr().err.splitlines() if "kernel warned" in text or "out of memory" in text]
    assert said == [
        "dmasync vm: the guest ran out of memory (512M) and its kernel killed python3: give more with --memory",
        "dmasync vm: the kernel warned while the command ran: "
        "WARNING: CPU: 0 PID: 7 at drivers/dma-buf/udmabuf.c:1 f+0x1",
    ]
    found = json.loads(result.read_text())
    assert (found["tainted"], found["killed_for_memory"]) == ("W", ["python3"])
    assert found["kernel_warnings"][0].splitlines()[1:] == [" call", "---[ end trace 0 ]---"]
