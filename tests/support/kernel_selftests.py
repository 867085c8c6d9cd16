"""The kernel's own selftests, compiled from Debian's sources when they are wanted; none of their code is kept here."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dmasync.harness.vm import cache
from dmasync.harness.vm.apt import Apt
from dmasync.harness.vm.host import host_machine

PACKAGE = "linux-source-6.12"
_TESTS = "tools/testing/selftests"
_SOURCES = {
    "dmabuf-heap": f"{_TESTS}/dmabuf-heaps/dmabuf-heap.c",
    "udmabuf": f"{_TESTS}/drivers/dma-buf/udmabuf.c",
}


@pytest.fixture(scope="session")
def kernel_sources() -> Path:
    """A folder with what of the kernel's sources the selftests need, from the newest package on offer."""
    apt = Apt(host_machine())
    version = apt.version(PACKAGE)
    if not version:
        pytest.skip(f"no package {PACKAGE} is on offer here")

    def build(into: Path) -> list[str]:
        (package,) = apt.download([PACKAGE], into)
        wanted = [f"{PACKAGE}/{path}" for path in (*_SOURCES.values(), f"{_TESTS}/kselftest.h", "include/uapi/drm")]
        pipe = subprocess.PIPE
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=pipe) as archive:
            inner = ["tar", "-xO", f"./usr/src/{PACKAGE}.tar.xz"]
            with subprocess.Popen(inner, stdin=archive.stdout, stdout=pipe) as sources:
                subprocess.run(["tar", "-xJ", "-C", into, *wanted], stdin=sources.stdout, check=True)
        package.unlink()
        return [f"{PACKAGE}/{path}" for path in _SOURCES.values()]

    return cache.entry(cache.cache_directory() / "sources" / version, build) / PACKAGE


@pytest.fixture(scope="session")
def selftest(kernel_sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Compiles a selftest by its name."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("selftests")
    headers = folder / "include"
    headers.mkdir()
    shutil.copytree(kernel_sources / "include/uapi/drm", headers / "drm")

    def compile_test(name: str, *arguments: str) -> Path:
        program = folder / f"{name}{''.join(arguments)}"
        if not program.exists():
            # Headers that are not exported yet mark pointers of the program's.
            subprocess.run(
                [compiler, "-O2", "-g", "-w", "-D__user=", "-I", headers, "-I", kernel_sources / _TESTS,
                 "-o", program, kernel_sources / _SOURCES[name], *arguments],
                check=True,
            )  # fmt: skip
        return program

    return compile_test
