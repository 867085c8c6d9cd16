"""A backend that counts."""

from __future__ import annotations

from typing import Any


class CountingBackend:
    """Passes every call on to *inner*; ``calls`` says how many."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._inner, name)

        def counted(*arguments: Any) -> Any:
            self.calls += 1
            return call(*arguments)

        return counted
