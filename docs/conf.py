"""How Sphinx builds the site: ``tox run -e docs``."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "extensions"))

project = "dmasync"
author = "The dmasync developers"
project_copyright = "2026, the dmasync developers"
version = release = installed_version("dmabuf-sync")

extensions = [
    "commands",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "sphinxarg.ext",
    "findings",
    "pictures",
    "public_names",
]
# "--" in an option's help is two hyphens.
smartquotes_action = "qe"
nitpicky = True
# No other project's index is fetched, so that the site builds without a network: only our own public names are checked.
nitpick_ignore_regex = [("py:.*", r"(?!dmasync\.(fakes\.)?[A-Z]).*")]

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True}
python_maximum_signature_line_length = 80

copybutton_prompt_text = "$ "

html_theme = "furo"
html_title = "dmasync"
html_static_path = ["_static"]
html_css_files = ["dmasync.css"]
html_show_sphinx = False
html_theme_options = {
    "top_of_page_buttons": [],
    "light_css_variables": {"color-brand-primary": "#0b6e4f", "color-brand-content": "#0b6e4f"},
    "dark_css_variables": {"color-brand-primary": "#5fd3a6", "color-brand-content": "#5fd3a6"},
}

# The links between our own pages are checked; other people's pages are not ours to keep.
linkcheck_ignore = [r"https?://"]
