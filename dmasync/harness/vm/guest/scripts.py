"""The scripts that a guest runs: lay the folders out, set the environment, run the command, keep its status.

Everything goes through the control folder, which guest and host both see: the kernel's command line is too short for a
command, and a console loses output where the guest has no udev for virtme-ng's ports.

The guest's root is read-only and virtme-ng's init hides some folders of it (/run, /var/tmp and others). So the command
runs in a root of its own: the whole of the first one again, below a layer that is thrown away.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dmasync.harness.vm.kernel_log import MARK

GUEST_FOLDER = "/run/dmasync"
CONTROL = f"{GUEST_FOLDER}/control"
ROOT = f"{GUEST_FOLDER}/root"
HOME = f"{GUEST_FOLDER}/home"
SITE = f"{GUEST_FOLDER}/site"

START = "start.sh"
INSIDE = "inside.sh"
COMMAND = "command.sh"
STARTED = "started"
FAILED = "failed"
RELEASE = "release"
STDOUT = "stdout"
STDERR = "stderr"
STATUS = "status"
KERNEL_LOG = "kernel-log"
TAINTED_BEFORE = "tainted-before"
TAINTED_AFTER = "tainted-after"


@dataclass(frozen=True)
class Mount:
    """A host folder as the guest sees it."""

    host: Path
    guest: Path
    writable: bool = False
    """Writable: what the guest writes is there on the host. Otherwise it goes to a layer that is thrown away."""


def mount_point(index: int) -> str:
    """Return where virtme-ng mounts the mount *index*; a plain name, as its own options need."""
    return f"{GUEST_FOLDER}/mount{index}"


def start_script(mounts: Sequence[Mount], modules: Path | None) -> str:
    """Return the script that virtme-ng's init runs: it makes the command's root and changes to it.

    *modules* is where the kernel's modules folder is in that root, or None to leave it to virtme-ng.
    """
    lines = [
        "#!/bin/sh",
        f'fail() {{ echo "$1" >{CONTROL}/{FAILED}; exit 1; }}',
        f"uname -r >{CONTROL}/{RELEASE}",
        *_overlay(lower="/", target=ROOT, name="root"),
        # 9p would show the host's own devices and processes there.
        f'for folder in proc sys dev; do mkdir -p "{ROOT}/$folder" && mount --rbind "/$folder" "{ROOT}/$folder"'
        ' || fail "binding /$folder"; done',
        *_bind(CONTROL, CONTROL),
    ]
    for index, mount in enumerate(mounts):
        source = mount_point(index)
        if mount.writable:
            lines += _bind(source, str(mount.guest))
        else:
            lines += _overlay(lower=source, target=f"{ROOT}{mount.guest}", name=f"mount{index}-layer")
    # virtme-ng's init has linked a build tree's modules in its own root.
    source = '$(readlink "$modules")' if modules is None else shlex.quote(str(modules))
    lines += [
        'modules="/lib/modules/$(uname -r)"',
        f"target={source}",
        f'if [ -n "$target" ]; then mkdir -p {ROOT}/lib/modules; rm -rf "{ROOT}$modules"; '
        f'ln -s "$target" "{ROOT}$modules"; fi',
    ]
    lines += [f"exec chroot {ROOT} /bin/sh {CONTROL}/{INSIDE}", ""]
    return "\n".join(lines)


def inside_script(
    *,
    working_directory: Path,
    environment: Mapping[str, str],
    links: Mapping[str, Path],
    programs: Mapping[str, str],
) -> str:
    """Return the script that runs in the command's root.

    *links* are the names to make in :data:`SITE`, a folder of modules for Python, and what each points at; *programs*
    are the names to make in ``/usr/local/bin`` and the command behind each.
    """
    lines = ["#!/bin/sh", f"mkdir -p {HOME}"]
    if links:
        lines.append(f"mkdir -p {SITE}")
    lines += [f"ln -s {shlex.quote(str(target))} {SITE}/{shlex.quote(name)}" for name, target in links.items()]
    for name, program in programs.items():
        path = f"/usr/local/bin/{name}"
        lines.append(f"""printf '#!/bin/sh\\nexec {program} "$@"\\n' >{path} && chmod +x {path}""")
    assignments = " ".join(shlex.quote(f"{name}={value}") for name, value in environment.items())
    lines += [
        "[ -e /dev/udmabuf ] || modprobe -q udmabuf 2>/dev/null",
        # Not by the shell's own read: it takes a byte at a time, and such a file ends behind the first.
        f"cat /proc/sys/kernel/tainted >{CONTROL}/{TAINTED_BEFORE}",
        f'echo "{MARK}" >/dev/kmsg',
        f": >{CONTROL}/{STARTED}",
        f"cd {shlex.quote(str(working_directory))} || cd /",
        # The init's own variables are not the command's.
        f"env -i {assignments} /bin/sh {CONTROL}/{COMMAND} </dev/null >>{CONTROL}/{STDOUT} 2>>{CONTROL}/{STDERR}",
        "status=$?",
        f"cat /proc/sys/kernel/tainted >{CONTROL}/{TAINTED_AFTER}",
        f"(dmesg || busybox dmesg) >{CONTROL}/{KERNEL_LOG} 2>/dev/null",
        # Written under another name first: the host must never read half a number.
        f"echo $status >{CONTROL}/{STATUS}.part && sync && mv {CONTROL}/{STATUS}.part {CONTROL}/{STATUS}",
        "",
    ]
    return "\n".join(lines)


def _bind(source: str, target: str) -> list[str]:
    quoted = shlex.quote(f"{ROOT}{target}")
    return [f"mkdir -p {quoted} && mount --bind {shlex.quote(source)} {quoted} || fail {shlex.quote(target)}"]


def _overlay(*, lower: str, target: str, name: str) -> list[str]:
    layer = f"{GUEST_FOLDER}/layers/{name}"
    # overlayfs splits its options at commas and its lower folders at colons; what comes here are names of our own.
    options = f"lowerdir={lower},upperdir={layer}/upper,workdir={layer}/work,xino=off"
    quoted = shlex.quote(target)
    return [
        f"mkdir -p {layer}/upper {layer}/work {quoted} && mount -t overlay -o {options} {name} {quoted}"
        f" || fail {quoted}"
    ]
