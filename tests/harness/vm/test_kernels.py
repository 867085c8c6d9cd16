"""Which kernel a specification means, and the cache of packaged ones, with a stand-in for the package manager."""

from __future__ import annotations

import errno
import gzip
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from dmasync.harness.vm import cache, host, kernels
from dmasync.harness.vm.apt import AptError
from dmasync.harness.vm.machine import VirtualMachine
from tests.support import fake_host

WITH_UDMABUF = "CONFIG_UDMABUF=y\nCONFIG_DRM_VGEM=m\n"
WITHOUT_UDMABUF = "# CONFIG_UDMABUF is not set\n"


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A host whose package manager is a stand-in, with an empty cache; give it packages with ``offer``."""
    programs = tmp_path / "bin"
    programs.mkdir()
    fake_host.install_apt(programs)
    folder = tmp_path / "archive"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setattr(host, "search_path", lambda: f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FAKE_ARCHIVE", str(folder))
    monkeypatch.setenv("FAKE_APT_LOG", str(tmp_path / "apt.log"))
    return folder


@pytest.fixture
def offer(archive, monkeypatch):
    def offer(**configurations: str) -> None:
        for release, config in configurations.items():
            fake_host.write_kernel_package(archive, release, config)
        names = [path.name.removesuffix(".deb") for path in archive.iterdir()]
        monkeypatch.setenv("FAKE_PACKAGES", " ".join([*names, "linux-image-6.12-amd64", "linux-image-6.12.9-rt-amd64"]))

    return offer


def downloads(tmp_path) -> list[str]:
    log = tmp_path / "apt.log"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return [line.split()[-1] for line in lines if " download " in line]


def test_the_default_is_the_newest_packaged_kernel_with_udmabuf_built_in(offer, tmp_path):
    offer(
        **{
            "6.12.9+deb12-amd64": WITH_UDMABUF,
            "6.12.10+deb12-amd64": WITH_UDMABUF,
            "6.13.1+deb12-amd64": WITHOUT_UDMABUF,
            "6.1.0-50-amd64": WITHOUT_UDMABUF,
        }
    )
    kernel = kernels.resolve(machine="x86_64")
    assert kernel.release == "6.12.10+deb12-amd64"
    assert kernel.source == "debian:6.12.10+deb12-amd64"
    assert kernel.option("CONFIG_UDMABUF") == "y"
    assert kernel.modules is not None
    assert kernel.modules.is_dir()
    # Neither the kernel line that never had udmabuf nor the real-time flavour was fetched to find that out.
    assert downloads(tmp_path) == ["linux-image-6.13.1+deb12-amd64", "linux-image-6.12.10+deb12-amd64"]


def test_a_packaged_kernel_is_fetched_once(offer, tmp_path):
    offer(**{"6.12.9+deb12-amd64": WITH_UDMABUF})
    first = kernels.resolve("debian:6.12.9", machine="x86_64")
    assert kernels.resolve("debian:6.12.9", machine="x86_64") == first
    assert len(downloads(tmp_path)) == 1


def test_a_version_is_not_taken_for_the_beginning_of_a_longer_number(offer):
    offer(**{"6.12.10+deb12-amd64": WITH_UDMABUF, "6.12.1+deb12-amd64": WITH_UDMABUF})
    assert kernels.resolve("debian:6.12.1", machine="x86_64").release == "6.12.1+deb12-amd64"
    assert kernels.resolve("debian:6.12", machine="x86_64").release == "6.12.10+deb12-amd64"


WITH_MODULES = WITH_UDMABUF + "CONFIG_9P_FS=m\n"
DEBIAN = "Debian Debian http://archive.example/debian/"


@pytest.fixture
def newer(archive, monkeypatch):
    """Offer kernels in the newest Debian's backports, packaged as they are since 6.19."""

    def newer(*releases: str, modules: bool = True) -> None:
        names = [
            name
            for release in releases
            for name in fake_host.write_split_kernel_packages(archive, release, WITH_MODULES, modules=modules)
        ]
        monkeypatch.setenv("FAKE_NEWER_PACKAGES", " ".join(names))
        monkeypatch.setenv("FAKE_SOURCES", DEBIAN)

    return newer


def test_a_newer_kernel_is_put_together_from_its_packages_in_the_backports(offer, newer, tmp_path):
    offer(**{"6.12.9+deb12-amd64": WITH_UDMABUF})
    newer("7.3.4+deb13-amd64", "7.3.2+deb13-amd64", "7.3.4+deb13-rt-amd64")
    kernel = kernels.resolve("debian:7.3", machine="x86_64")
    assert (kernel.release, kernel.source) == ("7.3.4+deb13-amd64", "debian:7.3.4+deb13-amd64")
    assert kernel.image.name == "vmlinuz"
    assert kernel.option("CONFIG_UDMABUF") == "y"
    assert kernel.modules is not None
    assert (kernel.modules / "kernel/fs/9p/9p.ko.xz").read_bytes() == b"module"
    assert len(downloads(tmp_path)) == 2
    assert kernels.resolve("debian:7.3.4+deb13-amd64", machine="x86_64") == kernel
    assert len(downloads(tmp_path)) == 2
    source = (tmp_path / "cache/dmasync/apt/amd64-newer/sources.list").read_text(encoding="ascii")
    assert " http://archive.example/debian/ trixie-backports main" in source
    assert kernels.resolve("debian:7.3-rt", machine="x86_64").release == "7.3.4+deb13-rt-amd64"
    assert kernels.resolve("debian:7.3.4+deb13-rt-amd64", machine="x86_64").release == "7.3.4+deb13-rt-amd64"


def test_a_kernel_of_another_flavour_in_the_cache_is_not_taken_for_the_plain_one(newer):
    newer("7.3.4+deb13-amd64", "7.3.4+deb13-rt-amd64")
    assert kernels.resolve("debian:7.3-rt", machine="x86_64").release == "7.3.4+deb13-rt-amd64"
    assert kernels.resolve("debian:7.3", machine="x86_64").release == "7.3.4+deb13-amd64"
    assert kernels.resolve("debian:7.3-rt", machine="x86_64").release == "7.3.4+deb13-rt-amd64"


def test_the_hosts_own_lists_are_asked_first(offer, newer):
    offer(**{"6.12.9+deb12-amd64": WITH_UDMABUF})
    newer("6.12.11+deb13-amd64")
    assert kernels.resolve("debian:6.12", machine="x86_64").release == "6.12.9+deb12-amd64"
    assert kernels.resolve("debian:6.12.11", machine="x86_64").release == "6.12.11+deb13-amd64"


def test_a_kernel_whose_modules_are_gone_is_refused_by_name_and_passed_over_as_default(offer, newer, monkeypatch):
    offer(**{"6.12.9+deb12-amd64": WITH_UDMABUF})
    newer("7.1.3+deb13-amd64", modules=False)
    with pytest.raises(AptError, match=r"linux-modules-7\.1\.3\+deb13-amd64 is no longer .* --build"):
        kernels.resolve("debian:7.1", machine="x86_64")
    assert kernels.cached("x86_64") == []
    listed = f"{os.environ['FAKE_PACKAGES']} {os.environ['FAKE_NEWER_PACKAGES']}"
    monkeypatch.setenv("FAKE_PACKAGES", listed)
    assert kernels.resolve(machine="x86_64").release == "6.12.9+deb12-amd64"


def test_a_cloud_kernel_is_refused_with_the_reason(offer):
    offer(**{"6.12.9+deb12-amd64": WITH_UDMABUF, "6.12.9+deb12-cloud-amd64": WITH_UDMABUF})
    for name in ("6.12-cloud", "6.12.9+deb12-cloud-amd64"):
        with pytest.raises(kernels.KernelError, match="no 9p file system") as caught:
            kernels.resolve(f"debian:{name}", machine="x86_64")
        assert caught.value.status == 2


def test_a_host_that_is_no_debian_says_that_it_has_no_archive_to_look_in(archive, monkeypatch):
    monkeypatch.setenv("FAKE_SOURCES", "Ubuntu Ubuntu http://archive.example/ubuntu/")
    with pytest.raises(AptError, match="name no Debian archive"):
        kernels.resolve("debian:7.3", machine="x86_64")


@pytest.mark.parametrize("beside", ["usr/lib/modules", "lib/modules"])
def test_a_folder_of_unpacked_packages_gives_its_newest_kernel(tmp_path, beside):
    for release in ("7.3.4", "7.3.12"):
        folder = tmp_path / beside / release
        (folder / "kernel").mkdir(parents=True)
        (folder / "vmlinuz").write_bytes(fake_host.x86_image(release))
        (folder / "config").write_text(WITH_MODULES, encoding="ascii")
    for given in (tmp_path, tmp_path / beside / "7.3.12", tmp_path / beside / "7.3.12" / "vmlinuz"):
        kernel = kernels.resolve(str(given), machine="x86_64")
        assert (kernel.release, kernel.image, kernel.modules) == ("7.3.12", folder / "vmlinuz", folder)
        assert kernel.option("CONFIG_UDMABUF") == "y"


def test_a_folder_without_the_modules_that_a_guest_needs_names_their_package(tmp_path):
    folder = tmp_path / "usr/lib/modules/7.3.4+deb13-amd64"
    folder.mkdir(parents=True)
    (folder / "vmlinuz").write_bytes(fake_host.x86_image("7.3.4+deb13-amd64"))
    (folder / "config").write_text(WITH_MODULES, encoding="ascii")
    with pytest.raises(kernels.KernelError, match=r"CONFIG_9P_FS as modules.*linux-modules-7\.3\.4\+deb13-amd64"):
        kernels.resolve(str(tmp_path), machine="x86_64")


def test_an_arm64_image_without_a_banner_has_its_folders_release(tmp_path):
    folder = tmp_path / "usr/lib/modules/7.3.4+deb13-arm64"
    folder.mkdir(parents=True)
    (folder / "vmlinuz").write_bytes(fake_host.arm64_image())
    assert kernels.resolve(str(tmp_path), machine="aarch64").release == "7.3.4+deb13-arm64"


def test_kernels_with_larger_pages_are_taken_only_where_they_are_asked_for(offer, monkeypatch):
    plain, large = "6.12.9+deb12-arm64", "6.12.9+deb12-arm64-16k"
    older = "6.12.8+deb12-arm64-16k"
    offer(**dict.fromkeys((plain, large, older), WITH_UDMABUF))
    assert kernels.resolve("debian:6.12-16k", machine="aarch64").release == large
    assert kernels.resolve("debian:6.12.8-16k", machine="aarch64").release == older
    assert kernels.resolve(f"debian:{large}", machine="aarch64").release == large
    assert kernels.resolve("debian:6.12.9", machine="aarch64").release == plain
    assert kernels.resolve(machine="aarch64").release == plain
    monkeypatch.setenv("FAKE_APT_FAILURE", "no route to host")
    assert kernels.resolve("debian:6.12", machine="aarch64").release == plain
    assert kernels.resolve(machine="aarch64").release == plain
    assert kernels.resolve("debian:6.12-16k", machine="aarch64").release == large


@pytest.mark.parametrize(
    ("config", "exact", "wanted"),
    [
        ("CONFIG_ARM64_4K_PAGES=y", False, []),
        ("CONFIG_ARM64_4K_PAGES=y", True, ["-cpu", "cortex-a57,cntfrq=1000000000"]),
        ("CONFIG_ARM64_16K_PAGES=y", False, ["-cpu", "cortex-a76"]),
        ("CONFIG_ARM64_16K_PAGES=y", True, ["-cpu", "cortex-a76,cntfrq=1000000000"]),
    ],
)
def test_a_processor_is_emulated_that_knows_the_kernels_pages(tmp_path, config, exact, wanted):
    file = tmp_path / "config"
    file.write_text(config + "\n", encoding="utf-8")
    kernel = kernels.Kernel(tmp_path / "Image", "6.12.9", "aarch64", "a test", config=file)
    assert VirtualMachine(kernel=kernel, exact=exact)._processor() == wanted


def test_a_damaged_cache_entry_is_made_anew(offer, tmp_path):
    offer(**{"6.12.9+deb12-amd64": WITH_UDMABUF})
    kernel = kernels.resolve("debian:6.12.9", machine="x86_64")
    whole = kernel.image.read_bytes()
    kernel.image.write_bytes(whole[:100])
    assert kernels.cached("x86_64") == []
    assert kernels.resolve("debian:6.12.9", machine="x86_64").image.read_bytes() == whole
    assert len(downloads(tmp_path)) == 2


def test_a_download_that_fails_leaves_nothing_and_says_what_apt_said(offer, tmp_path, monkeypatch):
    offer(**{"6.12.9+deb12-amd64": WITH_UDMABUF})
    monkeypatch.setenv("FAKE_APT_FAILURE", "Failed to fetch it  404  Not Found")
    with pytest.raises(AptError, match="404  Not Found") as caught:
        kernels.resolve("debian:6.12.9", machine="x86_64")
    assert caught.value.status == 4
    left = [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and not path.name.endswith(".lock")]
    assert left == []


@pytest.mark.parametrize(
    "words",
    ["Failed to fetch it  Error writing to file - write (28: No space left on device)", "not enough free space"],
)
def test_a_cache_that_has_no_room_is_no_missing_part_and_is_named(offer, tmp_path, monkeypatch, words):
    offer(**{"6.12.9+deb12-amd64": WITH_UDMABUF})
    monkeypatch.setenv("FAKE_APT_FAILURE", words)
    with pytest.raises(cache.FullDiskError) as caught:
        kernels.resolve("debian:6.12.9", machine="x86_64")
    assert caught.value.status == 2
    folder = tmp_path / "cache" / "dmasync"
    assert f"the disk of {folder} is full" in str(caught.value)
    assert "XDG_CACHE_HOME" in str(caught.value)


@pytest.mark.parametrize(("variable", "folder"), [("TMPDIR", "tmp"), ("XDG_CACHE_HOME", "cache")])
@pytest.mark.parametrize("wanted", [None, "debian:6.12", "debian:6.12.9"])
def test_a_full_disk_is_named_although_the_package_manager_names_something_else(
    offer, tmp_path, monkeypatch, variable, folder, wanted
):
    offer(**{"6.12.9+deb12-amd64": WITH_UDMABUF})
    full = tmp_path / folder
    full.mkdir(exist_ok=True)
    monkeypatch.setenv(variable, str(full))
    real = os.statvfs

    def statvfs(place):
        found = real(place)
        values = SimpleNamespace(f_blocks=found.f_blocks, f_frsize=found.f_frsize, f_bavail=found.f_bavail)
        values.f_bavail = 0 if str(place).startswith(str(full)) else 1 << 20
        return values

    monkeypatch.setattr(os, "statvfs", statvfs)
    monkeypatch.setenv("FAKE_APT_FAILURE", "The package lists or status file could not be parsed or opened.")
    with pytest.raises(cache.FullDiskError, match=rf"the disk of {full}\S* is full; .*set {variable}"):
        kernels.resolve(wanted, machine="x86_64")


def test_a_disk_that_fills_up_while_an_entry_is_made_is_named(tmp_path):
    def build(folder):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(cache.FullDiskError, match=f"the disk of {tmp_path} is full") as caught:
        cache.entry(tmp_path / "kernel", build)
    assert caught.value.status == 2
    assert [path.name for path in tmp_path.iterdir()] == [".kernel.lock"]


def test_without_the_archive_a_cached_kernel_serves_as_default(offer, tmp_path, monkeypatch):
    offer(**{"6.12.9+deb12-amd64": WITH_UDMABUF})
    kernels.resolve(machine="x86_64")
    offer(**{"6.12.10+deb12-amd64": WITH_UDMABUF})
    monkeypatch.setenv("FAKE_APT_FAILURE", "no route to host")
    assert kernels.resolve(machine="x86_64").release == "6.12.9+deb12-amd64"


def test_package_lists_that_point_at_what_is_gone_are_replaced_by_fresh_ones(offer, tmp_path, monkeypatch):
    offer(**{"6.12.9+deb12-amd64": WITH_UDMABUF})
    monkeypatch.setenv("FAKE_STALE_LISTS", "1")
    assert kernels.resolve(machine="x86_64").release == "6.12.9+deb12-amd64"
    calls = (tmp_path / "apt.log").read_text(encoding="utf-8").splitlines()
    assert any(call.endswith("-q update") and "Dir::State=" in call for call in calls)


def test_two_processes_fetch_a_kernel_once_between_them(offer, tmp_path):
    offer(**{"6.12.9+deb12-amd64": WITH_UDMABUF})
    program = """
from dmasync.harness.vm import kernels
print(kernels.resolve("debian:6.12.9", machine="x86_64").image.stat().st_ino)
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=os.environ)
        for _ in range(3)
    ]
    answers = {process.communicate()[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(answers) == 1
    assert len(downloads(tmp_path)) == 1


def test_a_version_that_is_not_offered_is_refused_with_those_that_are(offer):
    offer(**{"6.12.9+deb12-amd64": WITH_UDMABUF})
    with pytest.raises(kernels.KernelError, match=r"debian:7.0: not offered .* 6\.12\.9\+deb12-amd64") as caught:
        kernels.resolve("debian:7.0", machine="x86_64")
    assert caught.value.status == 2


def test_a_host_without_apt_is_told_to_give_a_path(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(host, "search_path", lambda: str(tmp_path / "nothing"))
    with pytest.raises(AptError, match="give --kernel PATH") as caught:
        kernels.resolve(machine="x86_64")
    assert caught.value.status == 4


@pytest.mark.parametrize(
    ("data", "machine", "words"),
    [
        (b"text", "x86_64", "no kernel image, expected a bzImage"),
        (fake_host.arm64_image(), "x86_64", "an arm64 kernel, expected a bzImage"),
        (fake_host.x86_image("6"), "aarch64", "an x86-64 kernel, expected an arm64 Image"),
    ],
)
def test_a_file_that_is_no_kernel_for_the_machine_is_refused(tmp_path, data, machine, words):
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(kernels.KernelError, match=words) as caught:
        kernels.resolve(str(path), machine=machine)
    assert caught.value.status == 2


def test_a_path_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(kernels.KernelError, match="no such file"):
        kernels.resolve(str(tmp_path / "nothing"))


def test_the_release_is_read_from_an_x86_images_header(tmp_path):
    (tmp_path / "bzImage").write_bytes(fake_host.x86_image("6.13.0-rc1-mine"))
    assert kernels.resolve(str(tmp_path / "bzImage"), machine="x86_64").release == "6.13.0-rc1-mine"


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_the_release_is_read_from_an_arm64_images_banner(tmp_path, compress):
    (tmp_path / "Image").write_bytes(compress(fake_host.arm64_image("Linux version 6.12.3-board (me@here) ")))
    assert kernels.resolve(str(tmp_path / "Image"), machine="aarch64").release == "6.12.3-board"


def test_a_build_tree_gives_its_image_release_and_configuration(tmp_path):
    image = tmp_path / "arch/x86/boot/bzImage"
    image.parent.mkdir(parents=True)
    image.write_bytes(fake_host.x86_image("6.14.0"))
    (tmp_path / ".config").write_text("CONFIG_UDMABUF=y\n# CONFIG_DRM_VGEM is not set\n", encoding="ascii")
    for specification in (tmp_path, image):
        kernel = kernels.resolve(str(specification), machine="x86_64")
        assert (kernel.build_tree, kernel.release) == (tmp_path, "6.14.0")
        assert (kernel.option("CONFIG_UDMABUF"), kernel.option("CONFIG_DRM_VGEM")) == ("y", "n")
    kernel.require("CONFIG_UDMABUF")
    with pytest.raises(kernels.KernelError, match="CONFIG_DRM_VGEM") as caught:
        kernel.require("CONFIG_UDMABUF", "CONFIG_DRM_VGEM")
    assert caught.value.status == 4


def test_a_build_tree_that_was_not_built_says_so(tmp_path):
    (tmp_path / ".config").touch()
    with pytest.raises(kernels.KernelError, match="is not built; run make"):
        kernels.resolve(str(tmp_path), machine="x86_64")


def test_two_configurations_have_one_digest_only_if_they_are_the_same(tmp_path):
    image = tmp_path / "vmlinuz"
    image.write_bytes(fake_host.x86_image("6"))
    config = tmp_path / "config"
    digests = []
    for text in ("# made today\nCONFIG_A=y\n", "# made yesterday\n\nCONFIG_A=y\n", "CONFIG_A=m\n"):
        config.write_text(text, encoding="ascii")
        digests.append(kernels.resolve(str(image), machine="x86_64").config_digest)
    assert digests[0] == digests[1] != digests[2]


def test_clearing_the_cache_removes_what_was_fetched(offer):
    offer(**{"6.12.9+deb12-amd64": WITH_UDMABUF})
    kernel = kernels.resolve("debian:6.12.9", machine="x86_64")
    assert [path.name for path in cache.clear()] == ["6.12.9+deb12-amd64"]
    assert not kernel.image.exists()
    assert cache.clear() == []


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"XDG_CACHE_HOME": "/somewhere", "HOME": "/home/a"}, "/somewhere/dmasync"),
        ({"XDG_CACHE_HOME": "", "HOME": "/home/a"}, "/home/a/.cache/dmasync"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/home/a"}, "/home/a/.cache/dmasync"),
    ],
)
def test_the_cache_lies_where_the_base_directory_specification_says(environment, expected, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert str(cache.cache_directory()) == expected


def test_an_empty_home_is_looked_up(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "")
    looked_up = cache.cache_directory()
    assert looked_up.is_absolute()
    assert str(looked_up) != "/.cache/dmasync"
    monkeypatch.delenv("HOME")
    assert cache.cache_directory() == looked_up


def test_a_cache_that_cannot_be_written_says_which_variable_moves_it(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(cache.CommandError, match="XDG_CACHE_HOME"):
        cache.entry(tmp_path / "file" / "entry", lambda folder: [])


def test_a_flavour_that_this_architecture_lacks_is_told_with_what_there_is(offer):
    offer(**{"6.12.117+deb12-amd64": WITH_UDMABUF})
    with pytest.raises(kernels.KernelError) as refusal:
        kernels.resolve("debian:6.12.117-16k", machine="x86_64")
    assert "no kernel for x86_64 ends in -16k; arm64 has such: --arch arm64" in str(refusal.value)
    assert "there is: 6.12.117+deb12-amd64" in str(refusal.value)


def test_a_version_that_is_not_offered_is_told_with_what_the_cache_has(offer, archive, monkeypatch):
    offer(**{"6.12.9+deb12-amd64": WITH_UDMABUF, "6.12.10+deb12-amd64": WITH_UDMABUF})
    with pytest.raises(kernels.KernelError, match=r"there is: 6\.12\.9\+deb12-amd64, 6\.12\.10\+deb12-amd64$"):
        kernels.resolve("debian:9.99", machine="x86_64")
    kernels.resolve("debian:6.12.9", machine="x86_64")
    monkeypatch.setenv("FAKE_PACKAGES", "linux-image-6.12.10+deb12-amd64")  # the archive drops what is old
    with pytest.raises(kernels.KernelError, match=r"deb12-amd64; in the cache: 6\.12\.9\+deb12-amd64$"):
        kernels.resolve("debian:9.99", machine="x86_64")
    assert kernels.resolve("debian:6.12.9", machine="x86_64").release == "6.12.9+deb12-amd64"


def test_where_nothing_new_can_be_kept_the_newest_in_the_cache_is_taken(offer, tmp_path, monkeypatch):
    offer(**{"6.12.9+deb12-amd64": WITH_UDMABUF})
    kernels.resolve("debian:6.12.9", machine="x86_64")
    offer(**{"6.12.10+deb12-amd64": WITH_UDMABUF})

    def locked(path):
        raise cache.CacheError("the cache folder cannot be written")

    monkeypatch.setattr(cache, "locked", locked)  # root may write to any folder
    assert kernels.resolve(machine="x86_64").release == "6.12.9+deb12-amd64"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    with pytest.raises(cache.CacheError):
        kernels.resolve(machine="x86_64")
