"""The script that a guest runs: it lays the folders out, sets the environment, runs the command, keeps its status.

Everything goes through the control folder, which guest and host share: the kernel's command line is too short for a
command, and a console loses output where the guest has no udev for virtme-ng's ports.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

GUEST_FOLDER = "/run/dmasync"
CONTROL = f"{GUEST_FOLDER}/control"
START = "start.sh"
COMMAND = "command.sh"
STARTED = "started"
RELEASE = "release"
STDOUT = "stdout"
STDERR = "stderr"
STATUS = "status"


@dataclass(frozen=True)
class Share:
    """A host folder as the guest sees it."""

    host: Path
    guest: Path
    writable: bool
    """Writable means: what the guest writes is there on the host. Otherwise it goes to a layer that is thrown away."""


def mount_point(index: int) -> str:
    """Return where virtme-ng mounts the share *index*; a plain name, as its own options need."""
    return f"{GUEST_FOLDER}/share{index}"


def start_script(
    *,
    shares: Sequence[Share],
    overlays: Sequence[Path],
    working_directory: Path,
    environment: Mapping[str, str],
) -> str:
    """Return the text of the script that the guest's init runs.

    *overlays* are folders of the guest's root that become writable, with a throw-away layer on top.
    """
    lines = ["#!/bin/sh", f"cd {CONTROL} || exit 1", f"uname -r >{RELEASE}"]
    for index, path in enumerate(overlays):
        lines.append(_overlay(lower=str(path), target=str(path), name=f"overlay{index}"))
    for index, share in enumerate(shares):
        target = shlex.quote(str(share.guest))
        if share.writable:
            lines.append(f"mkdir -p {target} && mount --bind {mount_point(index)} {target} || exit 1")
        else:
            lines.append(f"mkdir -p {target} || exit 1")
            lines.append(
                _overlay(lower=mount_point(index), target=str(share.guest), name=f"share{index}-layer")
            )
    # virtme-ng leaves the machine's own variables behind; the command gets the host's idea of an environment.
    lines.append("unset nr_open $(set | sed -n 's/^\\(virtme_[A-Za-z0-9_]*\\)=.*/\\1/p')")
    lines.append(f"mkdir -p {GUEST_FOLDER}/home")
    lines += [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    lines += [
        "[ -e /dev/udmabuf ] || modprobe -q udmabuf 2>/dev/null",
        f": >{STARTED}",
        f"cd {shlex.quote(str(working_directory))} || cd /",
        f"/bin/sh {CONTROL}/{COMMAND} </dev/null >>{CONTROL}/{STDOUT} 2>>{CONTROL}/{STDERR}",
        # Written under another name first: the host must never read half a number.
        f"echo $? >{CONTROL}/{STATUS}.part; sync; mv {CONTROL}/{STATUS}.part {CONTROL}/{STATUS}",
        "",
    ]
    return "\n".join(lines)


def _overlay(*, lower: str, target: str, name: str) -> str:
    layer = f"{GUEST_FOLDER}/{name}"
    # overlayfs splits its options at commas and its lower folders at colons.
    quoted = lower.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")
    options = shlex.quote(f"lowerdir={quoted},upperdir={layer}/upper,workdir={layer}/work,xino=off")
    return (
        f"mkdir -p {layer}/upper {layer}/work && "
        f"mount -t overlay -o {options} {name} {shlex.quote(target)} || exit 1"
    )
