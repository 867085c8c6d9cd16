"""The part of a cache's behaviour that nobody controls: which lines move when no one asked for it.

A real cache may write a dirty line back at any moment, and may drop a clean line and fetch it again at any
moment. The fake asks at each point where that makes a difference. What happens follows from the seed alone,
buffer by buffer.
"""

from __future__ import annotations

import random

from dmasync.fakes.memory.lines import LINE, Span


class Adversary:
    """Draws, for one buffer, which of some lines move. Seed None moves none: a cache that does as little
    as it may.
    """

    def __init__(self, seed: int | None, buffer: int = 0) -> None:
        self._random = None if seed is None else random.Random(f"{seed}/{buffer}")  # noqa: S311 - repeatable
        # Caches differ in how much they do unasked. The default seed's does little, which hides the fewest bugs.
        temper = random.Random(f"{seed}").random() if seed else 0.0  # noqa: S311
        self._rest = 0.9 - 0.7 * temper
        self._all = (1 - self._rest) * 0.3 if seed else 0.0

    def some(self, runs: list[Span]) -> list[Span]:
        """A part of the lines in *runs*: none, all, or spans of any number of lines at any place."""
        draw = self._random
        if draw is None or not runs:
            return []
        mood = draw.random()
        if mood < self._rest:
            return []
        if mood < self._rest + self._all:
            return list(runs)
        chosen = []
        for begin, end in runs:
            lines = (end - begin) // LINE
            spans = min(4, draw.randint(1, 1 + lines // 2))
            cuts = sorted(draw.randrange(lines + 1) for _ in range(2 * spans))
            for low, high in zip(cuts[::2], cuts[1::2], strict=True):
                if low < high:
                    chosen.append((begin + low * LINE, begin + high * LINE))
        return chosen
