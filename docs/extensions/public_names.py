"""Shows annotations and defaults as users write them: by public names, not by where a class is defined."""

from __future__ import annotations

import re
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


def readable_defaults(
    app: Sphinx, what: str, name: str, thing: object, options: object, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """Defaults as somebody would write them: ``SyncType.READ_WRITE``, ``RetryPolicy()``."""
    if signature:
        signature = re.sub(
            r"RetryPolicy\(errnos=.*?sleep=[^)]*\)",
            "RetryPolicy()",
            signature.replace("DEFAULT_RETRY", "RetryPolicy()"),
        )
        signature = re.sub(r"<(\w+\.\w+): \d+>", r"\1", signature)
        signature = re.sub(r"<(?:built-in )?function (\w+)>", r"\1", signature)
        signature = re.sub(r"frozenset\(\{(?:4, 11|11, 4)\}\)", "{EINTR, EAGAIN}", signature)
    return signature, returned


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the hooks."""
    app.connect("missing-reference", to_the_public_name)
    app.connect("autodoc-process-signature", readable_defaults)
    return {"parallel_read_safe": True}
