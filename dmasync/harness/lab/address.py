"""Where a board is: ``ssh://[USER@]BOARD[:PORT]``, or ``labgrid:PLACE``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

SSH, LABGRID = "ssh://", "labgrid:"
_FORM = "ssh://[USER@]BOARD[:PORT]"


def is_board(target: str) -> bool:
    """Whether *target* has the form of a board's address."""
    return target.startswith((SSH, LABGRID))


def parse_board(text: str) -> BoardAddress | PlaceAddress:
    """ValueError says what is wrong with *text*."""
    return PlaceAddress.parse(text) if text.startswith(LABGRID) else BoardAddress.parse(text)


@dataclass(frozen=True)
class PlaceAddress:
    """A place of labgrid: its name, a part of it that no other has, or an alias."""

    place: str

    @classmethod
    def parse(cls, text: str) -> PlaceAddress:
        """ValueError says what is wrong with *text*."""
        name = text.removeprefix(LABGRID)
        # What begins with a dash would be an option of labgrid-client.
        if not re.fullmatch(r"[\w+][\w.:/+-]*", name):
            raise ValueError(f"{text!r} names no place, expected {LABGRID}PLACE")
        return cls(name)

    def __str__(self) -> str:
        return f"{LABGRID}{self.place}"


@dataclass(frozen=True)
class BoardAddress:
    """What ssh needs to reach a board; keys and the rest come from the user's ssh configuration."""

    host: str
    user: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> BoardAddress:
        """ValueError says what is wrong with *text*."""
        try:
            parts = urlsplit(text)
            host, user, port = parts.hostname, parts.username, parts.port
        except ValueError as error:
            raise ValueError(f"{text!r} is no address of a board: {error}; expected {_FORM}") from None
        if parts.scheme != "ssh" or not host:
            raise ValueError(f"{text!r} names no board, expected {_FORM}")
        if parts.password is not None:
            raise ValueError("an address with a password in it: give the board a key instead")
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError(f"{text!r} has more than a board's address, expected {_FORM}")
        # What begins with a dash would be an option of ssh.
        is_host = re.fullmatch(r"[A-Za-z0-9_:%.][A-Za-z0-9_.:%-]*", host)
        if not is_host or not re.fullmatch(r"([\w.][\w.-]*)?", user or ""):
            raise ValueError(f"{text!r} has characters that no board's address has, expected {_FORM}")
        return cls(host, user or None, port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ssh://{self.user + '@' if self.user else ''}{host}{f':{self.port}' if self.port else ''}"
