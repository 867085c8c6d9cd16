"""What the pages share: their templates, and how a text stands in them."""

from __future__ import annotations

import re

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from dmasync.harness.runs.reading import printable


def template(name: str) -> Template:
    """One of ``templates/``; it escapes what it shows, and knows the filters ``plain`` and ``breakable``."""
    environment = Environment(
        loader=PackageLoader("dmasync.harness.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = printable
    environment.filters["breakable"] = breakable
    return environment.get_template(name)


def breakable(text: object) -> Markup:
    """*text* with places where a line may end: behind what parts the words of a row's name, and not within a word."""
    pieces = re.split(r"(?<=[_/\[\]:,-])(?=\w)", printable(text))
    return Markup("<wbr>").join(pieces)  # the pieces are escaped
