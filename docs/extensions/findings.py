"""The directive ``findings``: the table of what the sanitizer finds, from the sentences that it prints."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from dmasync.fakes.sanitizer import KINDS


class Findings(SphinxDirective):
    """A definition list: the kind, what would happen, what to do."""

    def run(self) -> list[nodes.Node]:
        """One item for each kind, in the sanitizer's order."""
        items = nodes.definition_list()
        for name, (consequence, remedy) in KINDS.items():
            term = nodes.term("", "", nodes.literal(text=name), ids=[name])
            remedies = nodes.paragraph("", "", nodes.strong(text="Fix: "), nodes.Text(remedy))
            items += nodes.definition_list_item(
                "", term, nodes.definition("", nodes.paragraph(text=consequence), remedies)
            )
        return [items]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("findings", Findings)
    return {"parallel_read_safe": True}
