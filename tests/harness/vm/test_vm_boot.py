"""The virtual runner with a real kernel: one boot an architecture, and everything that it shows."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

from dmasync import cli
from dmasync.harness.vm import host_packages, kernels
from dmasync.harness.vm.machine import GuestDiedError, VirtualMachine

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]


def packaged_kernel(machine: str) -> kernels.Kernel:
    if lacking := host_packages.missing_parts(machine):
        pytest.skip(str(host_packages.MissingPartError(lacking)))
    return kernels.resolve(machine=machine)


def test_a_guest_on_the_hosts_root_has_its_python_and_keeps_nothing_but_the_output(tmp_path):
    hidden = Path("/dev/shm/dmasync-test")
    hidden.mkdir(exist_ok=True)
    (hidden / "seen").write_text("seen", encoding="ascii")
    output = tmp_path / "out put"
    machine = VirtualMachine(
        kernel=packaged_kernel("x86_64"), output=output, mount=[hidden], working_directory=tmp_path
    )
    program = f"""
        import os, pathlib, subprocess
        import dmasync
        os.close(os.open("/dev/udmabuf", os.O_RDWR))
        os.close(os.open("/dev/dma_heap/system", os.O_RDONLY))
        subprocess.run(["modprobe", "vgem"], check=True)
        print(pathlib.Path("{hidden}/seen").read_text(), os.getcwd(), os.getuid())
        for place in ("/etc", "/root", "/var/tmp", "/run", "{tmp_path}", os.environ["HOME"]):
            pathlib.Path(place, "dmasync-trace").touch()
        pathlib.Path("{output}/kept").write_text(os.uname().release)
        raise SystemExit(42)
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(program), encoding="utf-8")
    try:
        completed = machine.run([machine.python, str(tmp_path / "program.py")])
    finally:
        (hidden / "seen").unlink()
        hidden.rmdir()
    assert completed.returncode == 42, completed.stderr
    assert completed.stdout == f"seen {tmp_path} 0\n"
    assert (output / "kept").read_text(encoding="ascii") == completed.kernel_release == machine.kernel.release
    for place in ("/etc", "/root", "/var/tmp", "/run", str(tmp_path)):
        assert not Path(place, "dmasync-trace").exists()


def test_a_panic_is_not_taken_for_the_commands_end():
    machine = VirtualMachine(kernel=packaged_kernel("x86_64"))
    with pytest.raises(GuestDiedError, match="Kernel panic - not syncing: sysrq triggered crash"):
        machine.run("echo c >/proc/sysrq-trigger; sleep 60")


def test_a_taint_without_a_word_in_the_log_is_told_by_its_letter(tmp_path, capfd):
    packaged_kernel("x86_64")
    result = tmp_path / "result.json"
    line = ["vm", "--quiet", "--result", str(result), "--", "echo 512 >/proc/sys/kernel/tainted"]
    assert cli.main(line) == 0
    assert "the kernel warned while the command ran: tainted W" in capfd.readouterr().err
    assert json.loads(result.read_text(encoding="utf-8"))["tainted"] == "W"


def test_an_arm64_guest_has_the_project_and_gives_its_status_and_output_back(tmp_path):
    machine = VirtualMachine(kernel=packaged_kernel("aarch64"), output=tmp_path / "out", exact=True)
    program = (
        "import os, sys, dmasync, pytest; os.close(os.open('/dev/udmabuf', os.O_RDWR)); "
        f"open('{tmp_path}/out/kept', 'w').write(os.uname().machine); print(os.sysconf('SC_PAGE_SIZE')); sys.exit(42)"
    )
    completed = machine.run([machine.python, "-c", program])
    assert completed.returncode == 42, completed.stderr
    assert completed.stdout == "4096\n"
    assert (tmp_path / "out/kept").read_text(encoding="ascii") == "aarch64"
    assert completed.kernel_release == machine.kernel.release
