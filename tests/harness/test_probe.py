"""What the probe says about nodes, real ones in a folder, and the shape of its JSON."""

from __future__ import annotations

import argparse
import errno
import gzip
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import dmasync
from dmasync import DmaBufAllocator, DmaBufAllocatorFlag, NoProviderError, cli
from dmasync.fakes import FakeBackend, faults
from dmasync.harness.probe import command, kvm, nodes, remedies
from dmasync.harness.vm import host
from tests.support import fake_host

UDMABUF = "/dev/udmabuf"
NOBODY = 65534


@pytest.fixture
def root(tmp_path):
    (tmp_path / "dev/dma_heap").mkdir(parents=True)
    return tmp_path


def node(root, path, configuration=None):
    return next(found for found in nodes.survey(configuration, root) if found.path == path)


def test_a_node_that_opens_needs_no_remedy(root):
    (root / "dev/udmabuf").symlink_to("/dev/null")
    found = node(root, UDMABUF)
    assert (found.present, found.opens, found.error, found.remedy) == (True, True, None, None)


def test_a_regular_file_in_a_nodes_place_is_no_node(root):
    (root / "dev/udmabuf").touch()
    found = node(root, UDMABUF)
    assert (found.present, found.opens, found.error) == (True, False, "ENOTTY")
    assert found.remedy.startswith("sudo rm /dev/udmabuf  # a regular file")


def test_a_node_is_judged_by_opening_and_not_by_its_looks(root):
    (root / "dev/udmabuf").mkdir()
    found = node(root, UDMABUF)
    assert (found.present, found.opens, found.error) == (True, False, "EISDIR")


@pytest.mark.parametrize(
    ("configuration", "remedy"),
    [
        ({"CONFIG_UDMABUF": "m"}, "sudo modprobe udmabuf"),
        ({"CONFIG_UDMABUF": "y"}, "--device /dev/udmabuf"),
        ({}, "CONFIG_UDMABUF=y, or a virtual machine: dmasync vm"),
        (None, "sudo modprobe udmabuf, or"),
    ],
)
def test_the_remedy_for_an_absent_node_follows_the_kernels_configuration(root, configuration, remedy):
    found = node(root, UDMABUF, configuration)
    assert (found.present, found.error) == (False, "ENOENT")
    assert remedy in found.remedy


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user that is refused")
@pytest.mark.parametrize(
    ("mode", "group", "remedy"),
    [(0o660, 44, "usermod -aG"), (0o600, 0, 'KERNEL=="udmabuf", GROUP="video"'), (0o600, 0, 'SUBSYSTEM=="dma_heap"')],
)
def test_a_refused_user_is_told_the_group_or_the_rule_that_lets_them_in(request, mode, group, remedy):
    # Not in tmp_path, whose parent any other run of pytest on this machine closes again for everybody else.
    root = Path(tempfile.mkdtemp())
    request.addfinalizer(lambda: shutil.rmtree(root))
    root.chmod(0o755)
    path = root / "dev/udmabuf"
    path.parent.mkdir()
    path.touch()
    os.chown(path, 0, group)
    path.chmod(mode)
    program = (
        "import json, os, pathlib, sys; from dataclasses import asdict; from dmasync.harness.probe import nodes\n"
        f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "print(json.dumps([asdict(n) for n in nodes.survey(None, pathlib.Path(sys.argv[1]))]))"
    )
    output = subprocess.run(
        [sys.executable, "-c", program, str(root)], capture_output=True, text=True, check=True
    ).stdout
    found = next(entry for entry in json.loads(output) if entry["path"] == UDMABUF)
    assert (found["opens"], found["error"]) == (False, "EACCES")
    assert remedy in found["remedy"]


def test_limits_are_read_where_the_module_says_them(root):
    folder = root / "sys/module/udmabuf/parameters"
    folder.mkdir(parents=True)
    (folder / "list_limit").write_text("1024\n", encoding="ascii")
    assert nodes.limits(root) == {"list_limit": 1024, "size_limit_mb": None}


def test_the_running_configuration_is_found_compressed_or_plain(root):
    assert nodes.running_configuration(root) == (None, None)
    (root / "boot").mkdir()
    (root / f"boot/config-{platform.release()}").write_text(
        "CONFIG_UDMABUF=m\n# CONFIG_X is not set\n", encoding="ascii"
    )
    assert nodes.running_configuration(root)[1] == {"CONFIG_UDMABUF": "m"}
    (root / "proc").mkdir()
    (root / "proc/config.gz").write_bytes(gzip.compress(b"CONFIG_UDMABUF=y\n"))
    assert nodes.running_configuration(root)[1] == {"CONFIG_UDMABUF": "y"}


def test_json_has_a_schema_and_agrees_with_the_exit_status(capsys):
    status = cli.main(["probe", "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert facts["schema"] == 1
    assert [entry["path"] for entry in facts["nodes"]] == [path for _, path in nodes.DEFAULT_PROVIDERS]
    usable = any(entry["opens"] for entry in facts["nodes"])
    assert status == (0 if usable or facts["virtual_machine"]["possible"] else 4)
    assert facts["target"] == facts["rung"]
    assert (facts["target"] == "hardware") == usable
    assert facts["compiled"] is dmasync.compiled
    assert facts["kernel"]["release"] == platform.release()
    for entry in facts["nodes"]:
        assert entry["opens"] == (entry["remedy"] is None)


def test_a_host_without_an_emulator_gets_the_line_that_installs_it(tmp_path, monkeypatch, capsys):
    fake_host.install_virtual_machine(tmp_path)
    (tmp_path / "qemu-system-x86_64").unlink()
    (tmp_path / "qemu-system-aarch64").unlink()
    monkeypatch.setattr(host, "search_path", lambda: str(tmp_path))
    cli.main(["probe"])
    shown = capsys.readouterr().out
    assert "virtual machine: not possible yet" in shown
    assert "apt-get install -y --no-install-recommends qemu-system-" in shown


@pytest.mark.parametrize("user", [0, 1000])
@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_eperm_is_a_device_policy_and_no_matter_of_groups_whoever_asks(monkeypatch, user, mode):
    monkeypatch.setattr(os, "geteuid", lambda: user)
    access = remedies.Access(mode, 44, "video")
    told = remedies.for_node(DmaBufAllocatorFlag.UDMABUF, UDMABUF, "EPERM", "y", access, "me")
    assert told == f"refused whoever asks: a device policy; in a container, start it with --device {UDMABUF}"


def test_remedies_that_are_run_one_after_the_other_undo_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    access = remedies.Access(0o600, 0, "root")
    heap, udmabuf = (
        remedies.for_node(flag, path, "EACCES", "y", access, "me")
        for flag, path in (
            (DmaBufAllocatorFlag.SYSTEM_HEAP, "/dev/dma_heap/system"),
            (DmaBufAllocatorFlag.UDMABUF, UDMABUF),
        )
    )
    fake_host.install_program(tmp_path, "sudo", "import os, sys\nos.execvp(sys.argv[1], sys.argv[1:])")
    fake_host.install_program(tmp_path, "udevadm")
    rules = tmp_path / "rules"
    for line in (heap, udmabuf, heap):
        call = line.replace(remedies.UDEV_FILE, str(rules))
        path = f"{tmp_path}:{os.environ['PATH']}"
        subprocess.run(["sh", "-c", call], check=True, capture_output=True, env={**os.environ, "PATH": path})
        assert rules.read_text(encoding="utf-8").splitlines() == list(remedies.UDEV_RULES)
    assert any('SUBSYSTEM=="dma_heap"' in rule for rule in remedies.UDEV_RULES)
    assert any('KERNEL=="udmabuf"' in rule for rule in remedies.UDEV_RULES)


@pytest.mark.parametrize(("in_use", "words"), [(True, "compiled core: in use"), (False, "compiled core: not in use")])
def test_the_probe_says_whether_the_compiled_core_is_in_use(in_use, words, monkeypatch, capsys):
    monkeypatch.setattr(dmasync, "compiled", in_use)
    cli.main(["probe"])
    assert words in capsys.readouterr().out


@pytest.fixture
def machine_parts(tmp_path, monkeypatch):
    """All that a virtual machine needs, but a kernel."""
    fake_host.install_virtual_machine(tmp_path)
    for name in ("apt-get", "dpkg"):
        fake_host.install_program(tmp_path, name)
    monkeypatch.setattr(host, "search_path", lambda: str(tmp_path))
    monkeypatch.setattr(command, "search_path", lambda: str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("cache", ["/proc/no/folder", "/dev/null"])
def test_a_virtual_machine_without_a_place_for_its_kernel_is_not_possible(machine_parts, monkeypatch, capsys, cache):
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    monkeypatch.setattr(command.nodes, "survey", lambda configuration: [])
    assert cli.main(["probe"]) == 4
    shown = capsys.readouterr().out
    assert "virtual machine: not possible yet" in shown
    assert "the cache cannot be written" in shown
    assert "fix with: export XDG_CACHE_HOME=" in shown


def test_a_host_that_can_boot_one_is_no_failure(machine_parts, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(machine_parts / "cache"))
    monkeypatch.setattr(command.nodes, "survey", lambda configuration: [])
    assert cli.main(["probe"]) == 0
    assert "dmasync bench would measure on: vm" in capsys.readouterr().out
    assert not (machine_parts / "cache").exists()


def test_a_node_of_kvm_that_makes_no_machine_is_no_kvm(tmp_path):
    assert kvm.try_kvm(tmp_path / "none") == (False, "")
    (tmp_path / "kvm").touch()
    works, why = kvm.try_kvm(tmp_path / "kvm")
    assert (works, "makes no virtual machine (" in why) == (False, True)
    (tmp_path / "folder").mkdir()
    assert kvm.try_kvm(tmp_path / "folder")[1].endswith("does not open (Is a directory)")


@pytest.mark.parametrize(
    ("emulator", "works", "why"),
    [
        ("import sys\nsys.exit(0)", True, ""),
        (
            "import sys\nprint('kvm.c:3183: Assertion `ret == 7\\' failed.', file=sys.stderr)\nsys.exit(134)",
            False,
            " ends when it is tried: one of its own checks fails",
        ),
        (
            "import sys\nprint('qemu: no kvm here', file=sys.stderr)\nsys.exit(1)",
            False,
            " ends when it is tried: qemu: no kvm here",
        ),
    ],
)
def test_an_emulator_that_ends_in_an_assertion_is_no_kvm(tmp_path, monkeypatch, emulator, works, why):
    for name in ("qemu-system-x86_64", "qemu-system-aarch64"):
        fake_host.install_program(tmp_path, name, emulator)
    monkeypatch.setattr(kvm, "search_path", lambda: str(tmp_path))
    monkeypatch.setattr(kvm.fcntl, "ioctl", lambda fd, request, *rest: 12 if request == 0xAE00 else os.dup(fd))
    (tmp_path / "kvm").touch()
    found = kvm.try_kvm(tmp_path / "kvm")
    assert found[0] is works
    assert found[1].endswith(why)


@pytest.mark.parametrize(
    ("found", "line"),
    [
        ((True, ""), "kvm: yes (not needed)"),
        ((False, ""), "kvm: no (not needed, machines are emulated)"),
        ((False, "[qemu] ends"), "kvm: no ([qemu] ends; not needed, machines are emulated)"),
    ],
)
def test_kvm_is_said_not_to_be_needed(monkeypatch, capsys, found, line):
    monkeypatch.setattr(command, "try_kvm", lambda: found)
    cli.main(["probe"])
    assert line in capsys.readouterr().out


def test_a_remedy_is_told_once_whole_and_with_the_nodes_that_it_is_for(monkeypatch, capsys):
    remedy = "a long line that is to be copied, " * 9
    found = [
        nodes.Node("CMA_HEAP", f"/dev/dma_heap/{name}", False, False, "ENOENT", None, None, None, remedy)
        for name in ("linux,cma", "a-heap-of-a-long-name-that-leaves-no-room", "third")
    ]
    monkeypatch.setattr(nodes, "survey", lambda configuration: found)
    monkeypatch.setenv("COLUMNS", "60")
    command.run(command_options())
    lines = capsys.readouterr().out.splitlines()
    (place,) = [at for at, line in enumerate(lines) if line == f"  {remedy}"]
    assert lines[place - 1] == f"fix {', '.join(node.path for node in found)} with:"


def command_options():
    return argparse.Namespace(json=False)


@pytest.mark.parametrize("error", ["EBUSY", "ENXIO", "ENODEV", "EMFILE", "ENFILE", "ENOMEM"])
def test_the_probe_and_the_allocator_say_the_same_of_a_refusal(error):
    refusal = faults.error(getattr(errno, error), on="open")
    with pytest.raises(NoProviderError) as refused:
        DmaBufAllocator(DmaBufAllocatorFlag.UDMABUF, backend=FakeBackend(faults=[refusal]))
    access = remedies.Access(0o660, 44, "video")
    told = remedies.for_node(DmaBufAllocatorFlag.UDMABUF, UDMABUF, error, "y", access, "me")
    # How much is free may have changed in between.
    alike = [re.sub(r"[0-9]+", "N", text) for text in (told, str(refused.value))]
    assert alike[0] in alike[1]
