"""The kernel's own selftests are fixtures here."""

from tests.support.kernel_selftests import kernel_sources, selftest

__all__ = ["kernel_sources", "selftest"]
