"""Puts a section for each command where a page says ``@COMMANDS@``: sphinx-argparse makes it from the parser."""

from __future__ import annotations

import argparse
from typing import Any

from sphinx.application import Sphinx

from dmasync.cli import COMMANDS, build_parser

DIRECTIVE = """\
```{{eval-rst}}
.. argparse::
   :module: commands
   :func: parser_of_the_page
   :prog: dmasync
   :nodefault:
   :nodefaultconst:
{options}
```
"""


def parser_of_the_page() -> argparse.ArgumentParser:
    """The commands' own, with examples that stay lines of their own where the text is read as reStructuredText."""
    parser = build_parser()
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    for command in commands.choices.values():
        command.epilog = command.epilog and command.epilog.replace("examples:\n", "examples::\n\n")
    return parser


def insert_commands(app: Sphinx, docname: str, source: list[str]) -> None:
    """The command itself, without its subcommands, then each of them."""
    if "@COMMANDS@" in source[0]:
        sections = [DIRECTIVE.format(options="   :nosubcommands:\n   :nodescription:")]
        sections += [f"## `dmasync {name}`\n\n{DIRECTIVE.format(options=f'   :path: {name}')}" for name in COMMANDS]
        source[0] = source[0].replace("@COMMANDS@", "\n".join(sections))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the hook."""
    app.connect("source-read", insert_commands)
    return {"parallel_read_safe": True}
