"""The root folder of another architecture, with a stand-in for the package manager."""

from __future__ import annotations

import os
import time

import pytest

from dmasync.harness.vm import arm64_root
from dmasync.harness.vm.apt import AptError
from dmasync.harness.vm.guest import host_files
from tests.support import fake_host

PACKAGES = {
    "bash": {"bin/bash": b"bash"},
    "busybox-static": {"bin/busybox": b"busybox"},
    "base-passwd": {
        "usr/share/base-passwd/passwd.master": b"root:*:0:0:root:/root:/bin/bash\n",
        "usr/share/base-passwd/group.master": b"root:*:0:\n",
    },
    "python3.11-minimal": {"usr/bin/python3.11": b"python", "usr/lib/python3.11/os.py": b"name = 'posix'\n"},
    "libc6": {"lib/ld-linux-aarch64.so.1": b"loader", "etc/ld.so.conf": b""},
}


@pytest.fixture
def archive(tmp_path, monkeypatch):
    programs, folder = tmp_path / "bin", tmp_path / "archive"
    programs.mkdir()
    folder.mkdir()
    fake_host.install_apt(programs)
    for name, files in PACKAGES.items():
        fake_host.write_package(folder, name, files)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FAKE_ARCHIVE", str(folder))
    monkeypatch.setenv("FAKE_CLOSURE", " ".join(PACKAGES))
    monkeypatch.setenv("FAKE_APT_LOG", str(tmp_path / "apt.log"))
    return folder


def test_packages_are_unpacked_over_the_merged_folders_and_finished_without_their_scripts(archive):
    root = arm64_root.foreign_root("aarch64")
    for name in ("bin", "lib", "sbin"):
        assert os.readlink(root / name) == f"usr/{name}"
    assert (root / "usr/bin/bash").read_bytes() == b"bash"
    assert (root / "usr/lib/ld-linux-aarch64.so.1").exists()
    assert (root / "etc/passwd").read_text(encoding="ascii").startswith("root:")
    assert os.readlink(root / "usr/sbin/poweroff") == "/bin/busybox"
    for name in ("dev", "proc", "run", "sys", "tmp"):
        assert (root / name).is_dir()


def test_a_root_is_built_once_and_again_when_its_recipe_changes(archive, tmp_path, monkeypatch):
    first = arm64_root.foreign_root("aarch64")
    assert arm64_root.foreign_root("aarch64") == first
    assert (tmp_path / "apt.log").read_text(encoding="utf-8").count(" download ") == 1
    monkeypatch.setattr(arm64_root, "RECIPE_VERSION", arm64_root.RECIPE_VERSION + 1)
    second = arm64_root.foreign_root("aarch64")
    assert second != first
    assert second.is_dir()
    assert not first.exists()


def test_a_root_that_lost_its_shell_is_built_anew(archive):
    root = arm64_root.foreign_root("aarch64")
    (root / "usr/bin/bash").unlink()
    assert (arm64_root.foreign_root("aarch64") / "usr/bin/bash").exists()


def test_a_package_that_cannot_be_had_leaves_no_root(archive, monkeypatch):
    monkeypatch.setenv("FAKE_APT_FAILURE", "no route to host")
    with pytest.raises(AptError, match="no route to host"):
        arm64_root.foreign_root("aarch64")
    folder = arm64_root.roots_folder()
    assert not folder.exists() or not [path for path in folder.iterdir() if path.is_dir()]


def test_what_a_killed_boot_left_in_the_root_is_removed_later_and_a_running_ones_is_kept(archive):
    root = arm64_root.foreign_root("aarch64")
    for name, age in (("virtme-init-old", 7200), ("virtme-init-new", 0)):
        (root / name).touch()
        os.utime(root / name, (time.time() - age,) * 2)
    arm64_root.foreign_root("aarch64")
    assert [path.name for path in root.glob("virtme-init-*")] == ["virtme-init-new"]


def test_only_packages_without_compiled_parts_are_brought_to_a_foreign_root():
    links = host_files.pure_python_links()
    assert links["pytest"].joinpath("__init__.py").exists()
    assert any(name.startswith("pytest-") and name.endswith(".dist-info") for name in links)
    assert "numpy" not in links
    assert not [name for name in links if name.endswith((".pth", ".so"))]


def installed(folder, name, *files, requires=()):
    """A distribution as an installer leaves it, with the given files."""
    info = folder / f"{name}-1.dist-info"
    info.mkdir()
    needs = "".join(f"Requires-Dist: {need}\n" for need in requires)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n{needs}", encoding="utf-8")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files), encoding="utf-8")
    # From CPython 3.12 on, files that are listed and not there are not told.
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()


def test_what_needs_a_compiled_package_is_not_brought_either(tmp_path, monkeypatch):
    monkeypatch.setattr(host_files, "import_folders", lambda: [tmp_path])
    installed(tmp_path, "Fast_Core", "fast_core/__init__.py", "fast_core/core.so")
    installed(tmp_path, "plugin", "plugin/__init__.py", requires=["fast.core >=2 ; python_version > '3'"])
    installed(tmp_path, "user", "user.py", requires=["plugin"])
    installed(tmp_path, "careful", "careful.py", requires=["fast-core; extra == 'speed'", "plain"])
    installed(tmp_path, "plain", "plain.py", "plain.pth", "../bin/plain", "__pycache__/plain.pyc")
    assert host_files.pure_python_links() == {
        "careful.py": tmp_path / "careful.py",
        "plain.py": tmp_path / "plain.py",
    }
