"""What to measure, and on which target: hardware, a virtual machine or the fake, and which of them this host has."""

from __future__ import annotations

from dataclasses import dataclass

from dmasync import DEFAULT_PROVIDERS
from dmasync.harness.exit_status import CommandError, ExitStatus
from dmasync.harness.lab.address import LABGRID, SSH, is_board, parse_board
from dmasync.harness.openable import refusal
from dmasync.harness.vm.kernels import ARCHITECTURES

HARDWARE, VM, FAKE, AUTO = "hardware", "vm", "fake", "auto"
TARGETS = (AUTO, HARDWARE, VM, FAKE)
WALL_IN_EMULATOR = "wall time in an emulator says little: --exact counts instructions"
GUEST_TIMEOUT_SECONDS = 1200.0


@dataclass(frozen=True)
class Request:
    """What to measure, and where: :data:`AUTO`, :data:`HARDWARE`, :data:`VM`, :data:`FAKE`, ``ssh://BOARD`` or
    ``labgrid:PLACE``.

    ``only`` are globs of rows' names, none for all rows; ``append`` are further kernel arguments, ``arch`` is one of
    ``dmasync.harness.vm.kernels.ARCHITECTURES``.
    """

    on: str = AUTO
    exact: bool = False
    quick: bool = False
    sizes: tuple[int, ...] = ()
    """In bytes; not empty: instead of the suites START, END and first START of buffers of these sizes."""
    only: tuple[str, ...] = ()
    kernel: str | None = None
    append: tuple[str, ...] = ()
    arch: str | None = None
    setup: bool = False
    timeout: float = GUEST_TIMEOUT_SECONDS

    def check(self) -> None:
        """CommandError (2) for what cannot be measured anywhere."""
        if not self.timeout > 0:
            raise CommandError(f"--timeout is {self.timeout:g}, expected seconds, more than 0")
        if self.arch is not None and self.arch not in ARCHITECTURES:
            raise CommandError(f"arch is {self.arch!r}, expected one of {', '.join(ARCHITECTURES)}")
        try:
            target_name(self.on)
        except ValueError as error:
            raise CommandError(str(error)) from None

    @property
    def names_kernel(self) -> bool:
        """Whether a kernel, its arguments or an architecture were given."""
        return bool(self.kernel or self.append or self.arch)


@dataclass(frozen=True)
class Chosen:
    """A target and why it is that one, in words."""

    target: str
    reason: str
    asked_for: bool = False
    """Whether the caller named it; if not, the fake takes the place of a virtual machine that this host cannot run."""


def choose(request: Request) -> Chosen:
    """Choose the target of *request*.

    CommandError: 2 where the arguments contradict each other, 4 for hardware whose nodes cannot be opened.
    """
    wanted = request.on
    if is_board(wanted):
        _refuse_for_a_board(request)
        return Chosen(wanted, "it was asked for", asked_for=True)
    if wanted in (HARDWARE, FAKE) and request.exact:
        raise CommandError(f"--exact counts instructions in an emulator: there is no exact clock on --on {wanted}")
    if wanted in (HARDWARE, FAKE) and request.names_kernel:
        raise CommandError("--kernel, --append and --arch choose a virtual machine's kernel: use --on vm")
    if wanted == HARDWARE and openable_node() is None:
        message = "no provider's node can be opened here: dmasync probe says why, --on vm needs none"
        raise CommandError(message, ExitStatus.SKIPPED)
    if wanted != AUTO:
        return Chosen(wanted, "it was asked for", asked_for=True)
    if request.names_kernel:
        return Chosen(VM, "a kernel was chosen", asked_for=True)
    if request.exact:
        return Chosen(VM, "the exact clock is a virtual machine's", asked_for=True)
    node = openable_node()
    if node is not None:
        return Chosen(HARDWARE, f"{node} can be opened")
    return Chosen(VM, "no provider's node can be opened here")


def target_name(text: str) -> str:
    """*text* where it names a target; ValueError where it does not."""
    if is_board(text):
        return str(parse_board(text))
    if text not in TARGETS:
        raise ValueError(f"target is {text!r}, expected one of {', '.join(TARGETS)}, {SSH}BOARD, {LABGRID}PLACE")
    return text


def _refuse_for_a_board(request: Request) -> None:
    if request.names_kernel:
        raise CommandError("--kernel, --append and --arch choose a virtual machine's kernel: a board has its own")
    if request.setup:
        raise CommandError("--setup is for virtual machines: a board needs python3 and nothing else")


def openable_node() -> str | None:
    """Return the first node of a provider that opens for this user, or None."""
    return next((provider.path for provider in DEFAULT_PROVIDERS if refusal(provider.path) is None), None)
