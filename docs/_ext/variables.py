"""A Sphinx directive that lists the environment variables, from the table that the program itself reads them by.

``.. environment-variables:: read`` lists those that have an effect, with ``refused`` those that are refused, with
``other`` those that programs around the package read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

from stem_trio._variables import VARIABLES

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx


class VariablesDirective(SphinxDirective):
    """See the module."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The list."""
        kind = self.arguments[0]
        lines: list[str] = []
        for variable in VARIABLES:
            if kind == "read" and variable.read is not None:
                facts = [variable.text, f"{variable.form}. Default: {variable.default}."]
            elif kind == "refused" and variable.instead is not None:
                facts = [variable.text, f"Instead: {variable.instead}."]
            elif kind == "other" and variable.read is None and variable.instead is None:
                facts = [variable.text]
            else:
                continue
            lines += [f"``{variable.name}``", *(f"   | {fact.replace('`', '``')}" for fact in facts), ""]
        if not lines:
            raise self.error(f"{kind!r} is none of read, refused, other")
        return self.parse_text_to_nodes(StringList(lines, f"<{self.name}>"))


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("environment-variables", VariablesDirective)
    return {"parallel_read_safe": True}
