"""Where the suites can run: hardware, a virtual machine, the fake; and which of them is to be had here."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

from dmasync import DEFAULT_PROVIDERS
from dmasync.harness.exit_status import CommandError, ExitStatus

HARDWARE, VM, FAKE, AUTO = "hardware", "vm", "fake", "auto"


@dataclass(frozen=True)
class Chosen:
    """A rung and why it is that one, in words."""

    rung: str
    reason: str
    asked_for: bool = False
    """Whether the caller named it; if not, a virtual machine that cannot be had gives way to the fake."""


def choose(rung: str, *, exact: bool, names_kernel: bool) -> Chosen:
    """Choose for ``--rung``; *names_kernel*: a kernel, its arguments or an architecture were given.

    CommandError: 2 where the arguments contradict each other, 4 for hardware whose nodes cannot be opened.
    """
    if rung == HARDWARE:
        if exact:
            raise CommandError("--exact counts instructions in an emulator: there is no exact clock on --rung hardware")
        if names_kernel:
            raise CommandError("--kernel, --append and --arch choose a virtual machine's kernel: use --rung vm")
        if openable_node() is None:
            message = "no provider's node can be opened here: dmasync probe says why, --rung vm needs none"
            raise CommandError(message, ExitStatus.SKIPPED)
        return Chosen(HARDWARE, "it was asked for", asked_for=True)
    if rung == FAKE and exact:
        raise CommandError("--exact counts instructions in an emulator: there is no exact clock on --rung fake")
    if rung == FAKE and names_kernel:
        raise CommandError("--kernel, --append and --arch choose a virtual machine's kernel: use --rung vm")
    if rung in (VM, FAKE):
        return Chosen(rung, "it was asked for", asked_for=True)
    if names_kernel:
        return Chosen(VM, "a kernel was chosen", asked_for=True)
    if exact:
        return Chosen(VM, "the exact clock is a virtual machine's", asked_for=True)
    node = openable_node()
    if node is not None:
        return Chosen(HARDWARE, f"{node} can be opened")
    return Chosen(VM, "no provider's node can be opened here")


def openable_node() -> str | None:
    """Return the first node of a provider that opens for this user, or None."""
    for provider in DEFAULT_PROVIDERS:
        with contextlib.suppress(OSError):
            os.close(os.open(provider.path, os.O_RDWR | os.O_CLOEXEC))
            return provider.path
    return None
