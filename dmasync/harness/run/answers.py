"""What a handler of a call says: a number is the call's result, an OSError its errno, and these two besides."""

from __future__ import annotations

import enum


class Said(enum.Enum):
    CARRY_ON = "the kernel does the call itself"
    SENT = "the caller has its answer already"


Answer = int | Said
