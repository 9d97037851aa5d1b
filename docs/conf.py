"""Sphinx configuration; build with `sphinx-build -W --keep-going docs docs/_build/html`."""

import re

import adjode

project = "adjode"
author = "The adjode developers"
copyright = "The adjode developers"
version = release = adjode.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx-mathjax-offline",  # formulas need no network
]
exclude_patterns = ["_build", "measured_choices.md", "measured"]  # included by choose.md, scaling.md and benchmarks.md
nitpicky = False

html_theme = "furo"
html_title = f"adjode {version}"
html_static_path = ["static"]
html_css_files = ["narrow.css"]
pygments_dark_style = "github-dark"  # the theme's own underlines what is imported, as if it were a link

myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
math_eqref_format = "({number})"

# Docstrings write names in single backticks, and |x| for an absolute value.
default_role = "code"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_param = False
napoleon_custom_sections = [("Attributes", "params_style"), ("Raises", "params_style")]  # several names may share a line
autodoc_typehints = "none"
autodoc_member_order = "bysource"


def escape_bars(app, what, name, obj, options, lines):
    """Keep |x| outside of backticks from being read as a substitution."""
    for k, line in enumerate(lines):
        lines[k] = "".join(
            part if part.startswith("`") else part.replace("|", r"\|") for part in re.split(r"(`[^`]*`)", line) if part
        )


def setup(app):
    app.connect("autodoc-process-docstring", escape_bars)
