"""A board that is a virtual machine whose clock counts instructions: ``python -m tests.lab.guest_board PORT FOLDER``.

FOLDER has an sshd_config, and the guest sees it under the same name. The guest's port 22 is PORT here. It runs until
this process ends, on this machine's own root folder and Python, as ``dmasync vm`` does.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dmasync.harness.progress import SilentProgress
from dmasync.harness.vm import kernels
from dmasync.harness.vm.guest import scripts
from dmasync.harness.vm.machine import VirtualMachine
from tests.lab.boards import free_port, key, read_to_the_end

_INSIDE = """
modprobe virtio_net; modprobe -q vgem
ip link set lo up
card=$(ls /sys/class/net | grep -v lo)
ip address add 10.0.2.15/24 dev "$card" && ip link set "$card" up && ip route add default via 10.0.2.2
echo -1 >/proc/sys/kernel/sched_rt_runtime_us
mkdir -p /run/sshd
exec /usr/sbin/sshd -D -e -p 22 -f {folder}/sshd_config
"""


class GuestBoard:
    """The process above; one that dies once it has said so many lines, if asked to."""

    def __init__(self, folder: Path, own: Path, dies_after: int | None = None) -> None:
        self.folder, self.port = folder, free_port()
        programs = folder / "programs"
        programs.mkdir(parents=True)
        run = f'"{sys.executable}" "$@"'
        # The machine does not start again: its emulator ends.
        last = (
            f"exec {run}" if dies_after is None else f"{run} | {{ head -n {dies_after}; echo b >/proc/sysrq-trigger; }}"
        )
        (programs / "python3").write_text(f"#!/bin/sh\n{last}\n")
        (programs / "python3").chmod(0o755)
        shutil.copy(own.with_suffix(".pub"), folder / "authorized")
        settings = {
            "HostKey": key(folder / "host"), "AuthorizedKeysFile": folder / "authorized", "PidFile": "none",
            "StrictModes": "no", "UsePAM": "no", "PermitRootLogin": "yes",
            "ForceCommand": f'PATH={programs}:$PATH sh -c "$SSH_ORIGINAL_COMMAND"',
        }  # fmt: skip
        (folder / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        line = [sys.executable, "-m", "tests.lab.guest_board", str(self.port), str(folder)]
        self._running = subprocess.Popen(
            line, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def wait_until_it_is_up(self) -> None:
        assert self._running.stdout is not None
        said = []
        for text in self._running.stdout:
            said.append(text)
            if "listening on" in text:
                break
        else:
            raise AssertionError("".join(said))
        self._drain = threading.Thread(target=read_to_the_end, args=(self._running.stdout,))
        self._drain.start()

    @property
    def is_there(self) -> bool:
        return self._running.poll() is None

    def close(self) -> None:
        self._running.terminate()
        self._running.wait()
        self._drain.join()


@dataclass(frozen=True, kw_only=True)
class NetworkedMachine(VirtualMachine):
    """A machine with a network card. Its clock does not leap while it waits: a login would be too late."""

    port: int

    def _command_line(
        self, runner: str, scratch: Path, mounts: Sequence[scripts.Mount], root: Path | None
    ) -> list[str]:
        line = super()._command_line(runner, scratch, mounts, root)
        line = [word.replace("sleep=off", "sleep=on") for word in line]
        network = f"user,id=board,hostfwd=tcp:127.0.0.1:{self.port}-:22"
        added = ("-netdev", network, "-device", "virtio-net-pci,netdev=board")
        return [*line, *(f"--qemu-opt={word}" for word in added)]


def main() -> int:
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    machine = NetworkedMachine(
        kernel=kernels.resolve(None, progress=SilentProgress()), exact=True, output=folder, timeout=3600, port=port
    )
    command = _INSIDE.format(folder=shlex.quote(str(folder)))
    done = machine.run(command, stdout=sys.stdout.buffer, stderr=sys.stderr.buffer)
    return done.returncode


if __name__ == "__main__":
    raise SystemExit(main())
