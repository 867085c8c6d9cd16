"""What options take, as argparse's ``type``: an empty text, which a variable that is not set leaves, is a mistake.

And the option that more than one command has.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def given_text(given: str) -> str:
    """*given*, which says something; argparse.ArgumentTypeError where it does not."""
    if not given.strip():
        raise argparse.ArgumentTypeError("is empty: is a variable not set?")
    return given


def given_path(given: str) -> Path:
    """*given* as a path. An empty one would be the folder that this runs in."""
    return Path(given_text(given))


def add_kernel_arguments(parser: argparse.ArgumentParser) -> None:
    """The option ``--append`` of the commands that boot a kernel."""
    parser.add_argument(
        "--append",
        metavar="ARG",
        type=given_text,
        action="append",
        default=[],
        help="an argument for the kernel; may be repeated",
    )
