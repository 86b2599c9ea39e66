"""A Sphinx directive that lists the tests which show a guarantee, by what their docstrings say of themselves.

``.. proofs:: G4`` lists every test in ``tests/`` and in the contract suites whose docstring begins by naming G4. A
guarantee without a test is a warning, which fails the build.
"""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from docutils import nodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
FOLDERS = ("src/stem_trio/testing/contracts", "tests")
NAMED = re.compile(r"^(G\d+(?:(?:, | and )G\d+)*): (.*)", re.DOTALL)

logger = logging.getLogger(__name__)


class Proof(NamedTuple):
    """A test, and what it says that it shows."""

    guarantees: tuple[str, ...]
    path: str
    name: str
    says: str


@lru_cache(maxsize=1)
def proofs() -> tuple[Proof, ...]:
    """All tests that name guarantees, by file and position."""
    found: list[Proof] = []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not node.name.startswith("test_"):
                    continue
                match = NAMED.match(ast.get_docstring(node) or "")
                if match is not None:
                    guarantees = tuple(re.findall(r"G\d+", match[1]))
                    found.append(Proof(guarantees, str(path.relative_to(ROOT)), node.name, " ".join(match[2].split())))
    return tuple(found)


class ProofsDirective(SphinxDirective):
    """See the module."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The list."""
        wanted = self.arguments[0]
        chosen = [proof for proof in proofs() if wanted in proof.guarantees]
        if not chosen:
            logger.warning("no test names %s", wanted, location=self.get_location())
        entries = nodes.bullet_list()
        for proof in chosen:
            entry = nodes.paragraph()
            entry += nodes.Text(proof.says + " ")
            entry += nodes.literal(text=f"{proof.path}::{proof.name}")
            entries += nodes.list_item("", entry)
        return [entries]


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("proofs", ProofsDirective)
    return {"parallel_read_safe": True}
