"""Buffer sizes as text: ``64KiB,3MiB`` on a command line, ``3MiB`` in a row's name."""

from __future__ import annotations

import argparse
import re

KIB, MIB = 1 << 10, 1 << 20
STEP = 4 * KIB
"""Every size is whole pages; the smallest that Linux has are 4 KiB."""
_SIZE = re.compile(r"(\d{1,12}) *(?:([KMG])(?:iB?)?)?", re.ASCII | re.IGNORECASE)
_DECIMAL = re.compile(r"(\d{1,12}) *([KMG])B", re.ASCII | re.IGNORECASE)
_UNITS = {None: 1, "K": KIB, "M": MIB, "G": 1 << 30}


def parse_sizes(text: str) -> tuple[int, ...]:
    """Bytes from ``4KiB,3MiB`` (or ``4k,3m``, or plain bytes), each size once; argparse.ArgumentTypeError says what is
    wrong, with ``3MB`` for one, which is neither.
    """
    sizes = []
    for part in text.split(","):
        if decimal := _DECIMAL.fullmatch(part.strip()):
            raise argparse.ArgumentTypeError(
                f"{part.strip()!r} counts in thousands, buffers are whole pages: "
                f"did you mean {decimal[1]}{decimal[2].upper()}iB?"
            )
        match = _SIZE.fullmatch(part.strip())
        size = int(match[1]) * _UNITS[match[2] and match[2].upper()] if match else 0
        if size <= 0 or size % STEP:
            raise argparse.ArgumentTypeError(
                f"{part.strip()!r} is no size: expected multiples of 4 KiB between commas, as 64KiB,3MiB"
            )
        sizes.append(size)
    return tuple(dict.fromkeys(sizes))


def size_name(size: int) -> str:
    """How rows name *size* bytes: in whole MiB, else in KiB."""
    return f"{size // MIB}MiB" if size % MIB == 0 else f"{size // KIB}KiB"
