"""Which kernel a specification means, and the cache of packaged ones, with a stand-in for the package manager."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys

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
