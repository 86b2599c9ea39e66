"""Sphinx configuration.

Builds without a network. With STEM_DOCS_INTERSPHINX=1 references to trio and the standard library become links.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "stem-trio"
author = "the stem-trio contributors"
copyright = f"2026, {author}"
release = version = installed_version("stem-trio")

extensions = [
    "myst_parser",
    "proofs",
    "public_api",
    "sphinx.ext.autodoc",
    "sphinxcontrib_trio",
    "variables",
]
if os.environ.get("STEM_DOCS_INTERSPHINX"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "trio": ("https://trio.readthedocs.io/en/stable", None),
        "anyio": ("https://anyio.readthedocs.io/en/stable", None),
        "attrs": ("https://www.attrs.org/en/stable", None),
    }

exclude_patterns = ["_build", "_generated"]
nitpicky = True
# A name in single backticks links to what the reference says of it, and is plain code otherwise (see `public_api`).
default_role = "py:obj"

autodoc_default_options = {"members": True, "member-order": "bysource", "show-inheritance": True}
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
autoclass_content = "class"
python_use_unqualified_type_names = True

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"stem-trio {version}"
html_copy_source = False
html_show_sphinx = False
