"""Every call of ``dmasync`` in the documentation is one that the real parsers take."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest

from dmasync.cli import build_parser
from tests.docs.pages import PAGES, ROOT, commands_of, name_of

WITH_CALLS = [page for page in [*PAGES, ROOT / "CONTRIBUTING.md"] if "dmasync " in page.read_text()]
SHELL = re.compile(r"^( *)```(?:console|sh|bash|yaml)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`(dmasync [^`\n]+)`")
SEPARATORS = {"&&", "||", ";", "|", "&", "(", ")"}


def calls(text: str) -> list[list[str]]:
    """The arguments of each call of dmasync in the shell command *text*, also in what it quotes."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    found: list[list[str]] = []
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word in SEPARATORS or set(word) <= set("<>&"):
            if "dmasync" in words:
                found.append(words[words.index("dmasync") + 1 :])
            words = []
        else:
            words.append(word)
    for call in list(found):
        for argument in call:
            if "dmasync " in argument:
                found += calls(argument)
    return found


def blocks(page: Path) -> list[str]:
    """The shell commands of *page* that name dmasync."""
    found = []
    for indent, block in SHELL.findall(page.read_text()):
        text = "\n".join(line.removeprefix(indent) for line in block.splitlines())
        if "$ " in text:
            found += [command for command, _ in commands_of(text)]
        else:
            found += re.findall(r"(?:run:|-) (?:\S*/)?(?=dmasync )(.*)", text)
    return [command for command in found if "dmasync " in command]


def refusal(call: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What the parsers say against *call*; "" where they take it, or print a version or the like."""
    try:
        build_parser(call[:1]).parse_args(call)
    except SystemExit as stop:
        return capsys.readouterr().err if stop.code else ""
    return ""


@pytest.mark.parametrize("page", WITH_CALLS, ids=name_of)
def test_the_parsers_take_every_call_in_a_block(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in blocks(page):
        for call in calls(command):
            assert refusal(call, capsys) == "", f"{name_of(page)}: {command}"


@pytest.mark.parametrize("page", WITH_CALLS, ids=name_of)
def test_every_option_in_a_sentence_exists(page: Path) -> None:
    for inline in INLINE.findall(page.read_text()):
        words = shlex.split(inline)[1:]
        if "--" in words:
            words = words[: words.index("--")]
        known = options_of(build_parser(words[:1]))
        assert {word.partition("=")[0] for word in words if word.startswith("-")} <= known, f"{name_of(page)}: {inline}"


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """The options of *parser* and of all parsers below it."""
    found = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found.update(*(options_of(below) for below in action.choices.values()))
    return found


def test_a_wrong_option_would_be_seen() -> None:
    (call,) = calls("dmasync gate a.json b.json --no-such-option  # a comment")
    with pytest.raises(SystemExit) as stop:
        build_parser().parse_args(call)
    assert stop.value.code == 2


def test_calls_are_found_behind_assignments_pipes_and_in_quotes() -> None:
    assert calls("A=1 dmasync probe --json | tee x; dmasync vm -- 'dmasync probe --json'") == [
        ["probe", "--json"],
        ["vm", "--", "dmasync probe --json"],
        ["probe", "--json"],
    ]
