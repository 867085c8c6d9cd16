"""Kernels out of a source tree, with stand-ins for make and the compiler: what is built, when again, what not."""

from __future__ import annotations

import os

import pytest

from dmasync.harness.progress import SilentProgress
from dmasync.harness.vm import cache, host, kernels
from tests.support import fake_host

FAKE_MAKE = """
import os, pathlib, sys
words = dict(word.split("=", 1) for word in sys.argv if "=" in word)
objects, target = pathlib.Path(words["O"]), sys.argv[-1]
with open(os.environ["FAKE_MAKE_LOG"], "a") as log:
    log.write(f"{words['ARCH']} {words['CROSS_COMPILE']} {target}\\n")
config = objects / ".config"
if target == "tinyconfig":
    config.write_text("CONFIG_TINY=y\\n")
elif target == "olddefconfig":
    lost = os.environ.get("FAKE_LOST", "").split()
    settings = {}
    for line in config.read_text().splitlines():
        if "=" in line and line.partition("=")[0] not in lost:
            name, value = line.split("=", 1)
            settings[name] = value
    config.write_text("".join(f"{name}={value}\\n" for name, value in settings.items()))
elif os.environ.get("FAKE_FAILURE"):
    print("  CC drivers/x.o\\ndrivers/x.c:7:3: error: it is broken\\nmake: *** [x] Error 1", file=sys.stderr)
    sys.exit(2)
else:
    image = objects / ("arch/x86/boot/bzImage" if target == "bzImage" else "arch/arm64/boot/Image")
    image.parent.mkdir(parents=True, exist_ok=True)
    image.write_bytes(bytes.fromhex(os.environ["FAKE_IMAGE"]))
    (objects / "include/config").mkdir(parents=True, exist_ok=True)
    (objects / "include/config/kernel.release").write_text("6.1.192\\n")
"""


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A source tree, on a host whose programs are stand-ins."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("flex", "bison", "bc"):
        fake_host.install_program(programs, name)
    fake_host.install_program(programs, "make", FAKE_MAKE)
    for prefix in ("x86_64", "aarch64"):
        fake_host.install_program(programs, f"{prefix}-linux-gnu-gcc", "print('gcc 12.2')")
    monkeypatch.setattr(host, "search_path", lambda: str(programs))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FAKE_MAKE_LOG", str(tmp_path / "make.log"))
    monkeypatch.setenv("FAKE_IMAGE", fake_host.x86_image("6.1.192").hex())
    tree = tmp_path / "linux"
    (tree / "scripts" / "kconfig").mkdir(parents=True)
    (tree / "Kconfig").write_text("mainmenu\n", encoding="ascii")
    return tree


def build(tree, machine="x86_64", fragment=None):
    return kernels.build(str(tree), machine, SilentProgress(), fragment=fragment)


def images_made(tmp_path) -> int:
    log = (tmp_path / "make.log").read_text(encoding="ascii").splitlines()
    return sum(line.endswith("Image") for line in log)


def test_a_built_kernel_has_its_image_release_and_configuration(tree):
    kernel = build(tree)
    assert kernel.image.read_bytes() == fake_host.x86_image("6.1.192")
    assert (kernel.release, kernel.source, kernel.modules) == ("6.1.192", f"built from {tree}", None)
    for option in ("CONFIG_UDMABUF", "CONFIG_DMABUF_HEAPS_CMA", "CONFIG_DRM_VGEM", "CONFIG_9P_FS", "CONFIG_TINY"):
        assert kernel.option(option) == "y"
    again = kernels.resolve(str(kernel.image), machine="x86_64")
    assert (again.release, again.config) == (kernel.release, kernel.config)


def test_it_is_built_once_and_again_when_the_tree_or_the_configuration_is_another(tree, tmp_path):
    first = build(tree)
    assert build(tree) == first
    assert images_made(tmp_path) == 1
    fragment = tmp_path / "fragment"
    fragment.write_text("CONFIG_DMA_API_DEBUG=y\n", encoding="ascii")
    second = build(tree, fragment=fragment)
    assert second.option("CONFIG_DMA_API_DEBUG") == "y"
    assert second.image != first.image
    (tree / "Kconfig").write_text("mainmenu and more\n", encoding="ascii")
    assert build(tree).image not in (first.image, second.image)
    assert images_made(tmp_path) == 3


def test_the_fragments_lines_win(tree, tmp_path):
    fragment = tmp_path / "fragment"
    fragment.write_text("CONFIG_CMA_SIZE_MBYTES=64\n# a remark\nCONFIG_SW_SYNC=n\n", encoding="ascii")
    kernel = build(tree, fragment=fragment)
    assert (kernel.option("CONFIG_CMA_SIZE_MBYTES"), kernel.option("CONFIG_SW_SYNC")) == ("64", "n")


def test_arm64_is_built_by_the_cross_compiler(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_IMAGE", fake_host.arm64_image().hex())
    kernel = build(tree, "aarch64")
    assert kernel.machine == "aarch64"
    assert kernel.image.read_bytes() == fake_host.arm64_image()
    lines = (tmp_path / "make.log").read_text(encoding="ascii").splitlines()
    assert lines[-1] == "arm64 aarch64-linux-gnu- Image"


def test_what_the_compiler_said_first_is_told_and_nothing_is_kept(tree, monkeypatch):
    monkeypatch.setenv("FAKE_FAILURE", "1")
    with pytest.raises(kernels.KernelError, match=r"drivers/x\.c:7:3: error: it is broken") as caught:
        build(tree)
    assert caught.value.status == 1
    monkeypatch.delenv("FAKE_FAILURE")
    assert build(tree).release == "6.1.192"


@pytest.mark.parametrize(
    ("lost", "words"),
    [("CONFIG_9P_FS", "does not take CONFIG_9P_FS=y, without which"), ("CONFIG_MINE", "--config: .*CONFIG_MINE=y")],
)
def test_an_option_that_the_tree_drops_is_refused(tree, tmp_path, monkeypatch, lost, words):
    monkeypatch.setenv("FAKE_LOST", lost)
    fragment = tmp_path / "fragment"
    fragment.write_text("CONFIG_MINE=y\n", encoding="ascii")
    with pytest.raises(kernels.KernelError, match=words) as caught:
        build(tree, fragment=fragment)
    assert caught.value.status == 2


def test_a_folder_that_is_no_tree_and_a_fragment_that_is_not_there_are_refused(tree, tmp_path):
    with pytest.raises(kernels.KernelError, match="no kernel source tree"):
        build(tmp_path)
    with pytest.raises(kernels.KernelError, match=r"--config .*cannot be read"):
        build(tree, fragment=tmp_path / "nothing")
    with pytest.raises(kernels.KernelError, match="one source for each line"):
        build("debian:6.1.192")


def test_a_missing_compiler_is_named_with_its_package(tree, tmp_path):
    os.unlink(tmp_path / "bin" / "aarch64-linux-gnu-gcc")
    os.unlink(tmp_path / "bin" / "bison")
    with pytest.raises(kernels.KernelError, match=r"needs .*aarch64-linux-gnu-gcc; .* gcc-aarch64-linux-gnu") as caught:
        kernels.build(str(tree), "aarch64", SilentProgress())
    assert caught.value.status == 4


def test_clearing_the_cache_removes_what_was_built_and_compiled(tree):
    kernel = build(tree)
    assert len(cache.clear()) == 2
    assert not kernel.image.exists()
