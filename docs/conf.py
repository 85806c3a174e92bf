"""The documentation site: ``make docs`` builds it with Sphinx, without a network.

The pages under ``reference/`` are written anew at each build, from the source.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import reference_pages  # noqa: E402 (found through the line above)

project = "RevStudy"
author = "The RevStudy authors"
project_copyright = "2026, the RevStudy authors; MIT license"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
napoleon_google_docstring = True
napoleon_numpy_docstring = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}

html_theme = "furo"
html_title = "RevStudy"
html_theme_options = {
    "light_css_variables": {"font-stack": "system-ui, sans-serif"},
    "dark_css_variables": {"font-stack": "system-ui, sans-serif"},
}
default_role = "code"


def _links_within_the_site(app, page: str, source: list[str]) -> None:
    source[0] = reference_pages.with_site_links(source[0], page)


def setup(app):
    """Write the reference pages before Sphinx looks for pages, and lead links to files to their pages."""
    app.connect("config-inited", lambda *_: reference_pages.write(HERE / "reference"))
    app.connect("source-read", _links_within_the_site)
