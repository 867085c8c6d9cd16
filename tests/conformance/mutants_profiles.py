"""Profiles that are broken on purpose: one answer of a release is that of the release before or after it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from dmasync import uapi
from dmasync.fakes.kernel.profile import PROFILES, Profile, profile_named
from tests.conformance.mutants_list import Mutant

ENOUGH = 5
_LAST = "def _said(name: str, wanted: str) -> str:\n"
_SWAP = """_unchanged = profile_of


def profile_of(release: Release, name: str = "") -> Profile:  # noqa: F811
    from dataclasses import replace

    profile, other = _unchanged(release, name), _unchanged(Release.parse({neighbour!r}))
    return replace(profile, {field}=other.{field}) if str(release) == {release!r} else profile


"""


def swaps(name: str) -> Iterator[Mutant]:
    """Each answer of the profile *name* that a neighbour gives otherwise; further ones' too, until there are five."""
    names = list(PROFILES)
    at = names.index(name)
    swapped: set[tuple[str, str]] = set()
    for distance in range(1, len(names)):
        neighbours = {names[max(at - distance, 0)], names[min(at + distance, len(names) - 1)]} - {name}
        done = {field for field, _ in swapped}
        swapped |= {(field, other) for other in neighbours for field in differences(name, other) if field not in done}
        if len({field for field, _ in swapped}) >= ENOUGH:
            break
    for field, neighbour in sorted(swapped):
        code = _SWAP.format(neighbour=PROFILES[neighbour], release=PROFILES[name], field=field)
        title = f"profile {name} has the {field.replace('_', ' ')} of {neighbour}"
        yield Mutant(title, "kernel/profile.py", _LAST, code + _LAST, profile=name)


def differences(name: str, other: str) -> list[str]:
    """The names of the answers in which two profiles differ, as far as the first can give the other's."""
    one, two = profile_named(name), profile_named(other)
    answers = [field.name for field in fields(Profile) if field.name not in ("name", "release")]
    if not one.seals & uapi.F_SEAL_EXEC:
        answers.remove("exec_seal_denies")  # nobody can ask it
    return [answer for answer in answers if getattr(one, answer) != getattr(two, answer)]


SWAPS = tuple(mutant for name in PROFILES for mutant in swaps(name))
