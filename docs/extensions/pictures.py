"""The directive ``picture``: an SVG file as part of the page, so that it follows the page's light or dark colours."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class Picture(SphinxDirective):
    """``picture`` FILE: the file lies in docs/pictures; its ``<title>`` is what a screen reader reads."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True
    option_spec = {"class": directives.class_option}  # noqa: RUF012 - as docutils declares it

    def run(self) -> list[nodes.Node]:
        """The SVG's text in a figure, with the content as its caption."""
        path = Path(self.env.srcdir) / "pictures" / self.arguments[0]
        self.env.note_dependency(str(path))
        svg = re.sub(r"<\?xml.*?\?>\s*|<!DOCTYPE.*?>\s*", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        figure = nodes.figure("", classes=["picture", *self.options.get("class", [])])
        figure += nodes.raw("", svg, format="html")
        if self.content:
            caption = nodes.caption()
            children, messages = self.parse_inline(" ".join(self.content))
            caption += children
            figure += [caption, *messages]
        return [figure]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("picture", Picture)
    return {"parallel_read_safe": True}
