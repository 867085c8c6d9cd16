"""Links annotations to the public names: a class is documented where users import it, not where it is defined."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

import dmasync
import dmasync.fakes

PUBLIC = {name: f"{package.__name__}.{name}" for package in (dmasync.fakes, dmasync) for name in package.__all__}


def to_the_public_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.Element | None:
    """``dmasync.access.SyncType`` is ``dmasync.SyncType``; None for what has no public name."""
    module, _, name = node.get("reftarget", "").rpartition(".")
    public = PUBLIC.get(name)
    if public is None or not module.startswith("dmasync") or module + "." + name == public:
        return None
    domain = env.domains.python_domain
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", public, node, content)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the hook."""
    app.connect("missing-reference", to_the_public_name)
    return {"parallel_read_safe": True}
