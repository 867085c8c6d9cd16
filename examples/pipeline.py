"""A camera pipeline on a machine that this one is not: raw frames in by DMA, debayered by the CPU, scanned out by DMA.

The buffers are fake, and their memory is not coherent: a START or END too few and the picture is wrong. Signals
interrupt the syncs (EINTR), the kernel is busy (EAGAIN), the devices take their time. Every frame is compared byte by
byte, and at the end a sanitizer looks at everything that happened. Needs numpy.

    python examples/pipeline.py --frames 1000
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from typing import Any

import numpy as np

from dmasync import DmaBuf, DmaBufAllocator, DmaBufAllocatorFlag, SyncType
from dmasync.fakes import FakeBackend, FakeDevice, Sanitizer, faults
from dmasync.fakes.device import Job

WIDTH, HEIGHT = 1920, 1080
RAW_SIZE = WIDTH * HEIGHT
RGB_SIZE = WIDTH * HEIGHT * 3
IN_FLIGHT = 4


def debayer(raw: Any, rgb: Any) -> None:
    """RGGB to RGB, each 2x2 cell one colour: a toy, but every output byte is written and depends on the input."""
    cells = raw.reshape(HEIGHT // 2, 2, WIDTH // 2, 2)
    colour = np.stack((cells[:, 0, :, 0], cells[:, 0, :, 1], cells[:, 1, :, 1]), axis=-1)
    out = rgb.reshape(HEIGHT // 2, 2, WIDTH // 2, 2, 3)
    wide = np.repeat(colour, 2, axis=1).reshape(HEIGHT // 2, WIDTH // 2, 2, 3)
    out[:, 0] = wide
    out[:, 1] = wide


class Pattern:
    """Frame n of the camera, and what the screen must show for it: no two neighbouring frames share a byte."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        self._raw = random.integers(0, 256, RAW_SIZE, dtype=np.uint8)
        self._rgb = np.empty(RGB_SIZE, dtype=np.uint8)
        debayer(self._raw, self._rgb)

    def raw(self, frame: int) -> Any:
        """What the sensor sees."""
        return self._raw + np.uint8(frame % 256)

    def rgb(self, frame: int) -> Any:
        """What the screen must show."""
        return self._rgb + np.uint8(frame % 256)


class WrongPictureError(Exception):
    """A frame came out that is not the one that went in."""


class Pipeline:
    """Four raw and four RGB buffers, a camera that fills the one, a display that scans out the other."""

    def __init__(self, backend: Any, *, seed: int = 0, jitter: float = 0.002) -> None:
        self._pattern = Pattern(seed)
        self._camera = FakeDevice(backend, name="camera", jitter=jitter, seed=seed)
        self._display = FakeDevice(backend, name="display", jitter=jitter, seed=seed + 1)
        with DmaBufAllocator(DmaBufAllocatorFlag.CMA_HEAP, backend=backend) as allocator:
            self.raw = [allocator.alloc(f"raw{i}", RAW_SIZE) for i in range(IN_FLIGHT)]
            self.rgb = [allocator.alloc(f"rgb{i}", RGB_SIZE) for i in range(IN_FLIGHT)]
        self._shown: deque[tuple[int, Job]] = deque()

    def run(self, frames: int) -> None:
        """Put *frames* frames through; WrongPictureError at the first that is not right."""
        for frame in range(min(IN_FLIGHT, frames)):
            self._capture(frame)
        for frame in range(frames):
            self._process(self.raw[frame % IN_FLIGHT], self.rgb[frame % IN_FLIGHT])
            self._show(frame)
            if frame + IN_FLIGHT < frames:
                self._capture(frame + IN_FLIGHT)
        while self._shown:
            self._check(*self._shown.popleft())

    def _capture(self, frame: int) -> None:
        # Asynchronous: the fence that it leaves on the buffer is what the START below waits for.
        self._camera.write_async(self.raw[frame % IN_FLIGHT], self._pattern.raw(frame))

    @staticmethod
    def _process(raw: DmaBuf, rgb: DmaBuf) -> None:
        with raw.cpu_access(SyncType.READ) as source, rgb.cpu_access(SyncType.WRITE) as target:
            debayer(
                np.frombuffer(source, np.uint8, count=RAW_SIZE),
                np.frombuffer(target, np.uint8, count=RGB_SIZE),
            )

    def _show(self, frame: int) -> None:
        self._shown.append((frame, self._display.read_async(self.rgb[frame % IN_FLIGHT], RGB_SIZE)))
        if len(self._shown) > IN_FLIGHT // 2:
            self._check(*self._shown.popleft())

    def _check(self, frame: int, job: Job) -> None:
        seen = np.frombuffer(job.result(timeout=60), np.uint8)
        if not np.array_equal(seen, self._pattern.rgb(frame)):
            wrong = int(np.count_nonzero(seen != self._pattern.rgb(frame)))
            raise WrongPictureError(f"frame {frame}: {wrong} of {RGB_SIZE} bytes are wrong")

    def close(self) -> None:
        """Stop the devices, give the buffers back."""
        self._camera.close()
        self._display.close()
        for buffer in (*self.raw, *self.rgb):
            buffer.close()


def machine(seed: int) -> FakeBackend:
    """A fake machine without coherent caches, on which syncs are refused now and then."""
    return FakeBackend(coherent=False, seed=seed, faults=[faults.mix(seed, rate=0.4)])


def main() -> int:
    """Run it, print the rate; 1 if a picture was wrong or the sanitizer found something."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    backend = machine(options.seed)
    pipeline = Pipeline(backend, seed=options.seed)
    begin = time.perf_counter()
    try:
        pipeline.run(options.frames)
    except WrongPictureError as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    finally:
        pipeline.close()
    seconds = time.perf_counter() - begin
    journal = backend.journal
    refused = len(journal.attempts) - len(journal.transitions())
    findings = Sanitizer(backend).findings()
    sys.stdout.write(
        f"{options.frames} frames of {WIDTH}x{HEIGHT} in {seconds:.1f} s: {options.frames / seconds:.1f} frames/s; "
        f"{len(journal.transitions())} edges, {refused} refused with EINTR or EAGAIN, {len(findings)} findings\n"
    )
    for finding in findings:
        sys.stdout.write(f"\n{finding}\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
