"""A kernel that can be booted: its image, modules, configuration."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path

from dmasync.harness.exit_status import CommandError, ExitStatus

ARCHITECTURES = {
    "x86-64": "x86_64",
    "x86_64": "x86_64",
    "amd64": "x86_64",
    "arm64": "aarch64",
    "aarch64": "aarch64",
}
"""What ``--arch`` takes, and the kernel's own name for each."""


class KernelError(CommandError):
    """What was given leads to no kernel: exit status 2, or 4 where this host lacks the means."""


@dataclass(frozen=True)
class Kernel:
    """A kernel that can be booted."""

    image: Path
    """The bzImage (x86-64) or Image (arm64, plain or gzipped)."""
    release: str
    """What ``uname -r`` will say, as read from the image; empty if it could not be found there."""
    machine: str
    """The kernel's own name for its architecture: ``x86_64`` or ``aarch64``."""
    source: str
    """Where it came from, in words a result can carry: ``debian:6.12.117+deb12-amd64`` or the path."""
    modules: Path | None = None
    """The folder of its modules (the one that holds ``modules.order``), or None: everything is built in."""
    config: Path | None = None
    """Its configuration, where it is known."""
    build_tree: Path | None = None

    @property
    def lies_alone(self) -> bool:
        """Neither modules nor a configuration are beside the image, as of a packaged kernel that was copied."""
        return self.modules is None and self.config is None

    def option(self, name: str) -> str | None:
        """Return the value of configuration option *name* (``CONFIG_…``): ``y``, ``m``, other text, ``n`` for not
        set, or None if the configuration is not known.
        """
        if self.config is None:
            return None
        setting = f"{name}="
        with contextlib.suppress(OSError):
            for line in self.config.read_text(encoding="utf-8", errors="replace").splitlines():
                if line.startswith(setting):
                    return line.removeprefix(setting).strip().strip('"')
        return "n"

    @property
    def config_digest(self) -> str | None:
        """The SHA-256 of the configuration, without comments and blank lines, or None if it is not known."""
        if self.config is None:
            return None
        lines = self.config.read_text(encoding="utf-8", errors="replace").splitlines()
        settings = "\n".join(line for line in lines if line.startswith("CONFIG_"))
        return hashlib.sha256(settings.encode()).hexdigest()

    def require(self, *names: str) -> None:
        """Raise :class:`KernelError` (exit status 4) if an option is known to be neither ``y`` nor ``m``."""
        lacking = [name for name in names if self.option(name) not in ("y", "m", None)]
        if lacking:
            raise KernelError(
                f"kernel {self.release or self.source} is built without {', '.join(lacking)}; "
                "give --kernel one that has it, or none for a packaged one",
                ExitStatus.SKIPPED,
            )
