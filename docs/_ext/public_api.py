"""Sphinx directives that document what the package exports, so that the reference cannot fall behind it.

``.. public-api:: task options`` documents the names of ``stem_trio.__all__`` that are defined in ``stem_trio.task`` or
``stem_trio.options``, or in a package below them; without arguments, all names that no directive before it took. A
module that does not exist is an empty one.

``.. public-module:: abc`` documents ``stem_trio.abc.__all__``, less what the top level exports. With
``:only: Name Other`` it documents these names, without the docstring of the module.

References in docstrings name things by where they are defined, or by their bare name; they are led to where they are
documented. What belongs to other projects is left as plain text where intersphinx does not know it.

Docstrings are in Google's style with one difference: types stand in annotations only, so that a colon in a "Returns"
section, or in the first line of a property's docstring, is a colon. Napoleon, run as an extension, would take what is
before it for a type; hence it is called from here.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import inspect
import re
import sys
from typing import TYPE_CHECKING, Any

from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.ext.napoleon import Config, GoogleDocstring
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

PACKAGE = "stem_trio"
TAKEN = "public_api.taken"
FOREIGN_MODULES = (
    "abc",
    "asyncio",
    "collections.abc",
    "contextlib",
    "datetime",
    "enum",
    "logging",
    "msgspec",
    "pathlib",
    "redis.credentials",
    "trio",
    "types",
    "typing",
)


def _module_of(value: object) -> str:
    return getattr(value, "__module__", None) or type(value).__module__


def _directive_for(value: object) -> str:
    if inspect.isclass(value):
        return "autoexception" if issubclass(value, BaseException) else "autoclass"
    if inspect.ismodule(value):
        return "automodule"
    return "autofunction" if callable(value) else "autodata"


class _Base(SphinxDirective):
    has_content = False

    def document(self, module: str, names: list[str]) -> list[nodes.Node]:
        """The nodes that autodoc makes of these names of a module."""
        lines: list[str] = []
        scope = importlib.import_module(module)
        for name in names:
            value = getattr(scope, name)
            lines += [f".. {_directive_for(value)}:: {module}.{name}", ""]
        source = f"<{self.name}>"
        return self.parse_text_to_nodes(StringList(lines, source)) if lines else []


class PublicApi(_Base):
    optional_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        package = importlib.import_module(PACKAGE)
        taken: set[str] = self.env.temp_data.setdefault(TAKEN, set())
        wanted = tuple(f"{PACKAGE}.{word}." for arg in self.arguments for word in arg.split())
        names = [
            name
            for name in getattr(package, "__all__", ())
            if name not in taken
            and not name.startswith("__")
            and (not wanted or f"{_module_of(getattr(package, name))}.".startswith(wanted))
        ]
        taken.update(names)
        return self.document(PACKAGE, names)


class PublicModule(_Base):
    required_arguments = 1
    option_spec = {"only": directives.unchanged_required}  # noqa: RUF012 - docutils wants a plain dict

    def run(self) -> list[nodes.Node]:
        module = f"{PACKAGE}.{self.arguments[0]}"
        parent = module.rpartition(".")[0]
        if importlib.util.find_spec(parent) is None or importlib.util.find_spec(module) is None:
            return []
        if only := self.options.get("only"):
            return self.document(module, only.split())
        scope = importlib.import_module(module)
        exported = set(getattr(importlib.import_module(PACKAGE), "__all__", ()))
        names = [name for name in getattr(scope, "__all__", ()) if name not in exported]
        head = self.parse_text_to_nodes(StringList([f".. automodule:: {module}", "   :no-members:", ""], "<module>"))
        return head + self.document(module, names)


def _returns_as_field(lines: list[str]) -> list[str]:
    """The lines with each "Returns" section as a field, whose text nobody looks into for a type."""
    result: list[str] = []
    within = False
    for line in lines:
        if line.rstrip() in {"Returns:", "Yields:"}:
            within = True
            result.append(f":{line.rstrip()[:-1].lower()}:")
            continue
        within = within and (not line.strip() or line[:1].isspace())
        result.append(f"    {line.strip()}" if within and line.strip() else line)
    return result


def process_docstring(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Turn a docstring in Google's style into reStructuredText, in place."""
    kind = "method" if what in {"attribute", "property"} else what
    config = Config(napoleon_use_ivar=True, napoleon_numpy_docstring=False)
    lines[:] = GoogleDocstring(_returns_as_field(lines), config, app, kind, name, obj, options).lines()


# What has no entry to link to: type variables, names that are private or in a private module, and halves of annotations
# that Sphinx could not parse.
UNLISTED = re.compile(r"(.*\.)?([A-Z]|[A-Z]\w?_(co|contra)|_\w+(\.\w+)*)|.*[\[\]].*")
# Internal classes that show up as bases, or in the constructors of classes which only the runtime makes.
INTERNAL = frozenset({"FunctionSignature", "Keyspace", "RedisStore", "RedisTransport", "SqliteStore"})


def _foreign_names() -> frozenset[str]:
    names = set(dir(builtins))
    for module in FOREIGN_MODULES:
        names.update(dir(importlib.import_module(module)))
    return frozenset(names)


FOREIGN = _foreign_names()


def _is_alias(name: str) -> bool:
    """Whether this is what a module of the package calls a type that is not a class of its own."""
    modules = [module for path, module in sys.modules.items() if path.partition(".")[0] == PACKAGE]
    return any(hasattr(module, name) and not inspect.isclass(getattr(module, name)) for module in modules)


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement) -> nodes.Node | None:
    """Lead a reference that nothing else resolves to the public name that is meant."""
    if node.get("refdomain") != "py":
        return None
    target: str = node["reftarget"]
    domain: Any = env.domains["py"]
    parts = target.split(".")
    by_tail: dict[str, str] = {}
    for full in domain.objects:
        bits = full.split(".")
        for start in range(len(bits)):
            if bits[start][:1].isupper() or start == len(bits) - 1:
                by_tail.setdefault(".".join(bits[start:]), full)
                break
    for start in range(len(parts)):
        full = by_tail.get(".".join(parts[start:]))
        if full is not None and (len(parts) == 1 or parts[0] == PACKAGE or start == 0):
            return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", full, node, content)
    foreign = parts[0] in FOREIGN if len(parts) == 1 else parts[0] != PACKAGE
    if (
        foreign
        or node.get("reftype") == "obj"
        or UNLISTED.fullmatch(target)
        or parts[-1] in INTERNAL
        or _is_alias(parts[-1])
    ):
        return content
    return None


def setup(app: Sphinx) -> dict[str, Any]:
    app.setup_extension("sphinx.ext.autodoc")
    app.add_directive("public-api", PublicApi)
    app.add_directive("public-module", PublicModule)
    app.connect("autodoc-process-docstring", process_docstring)
    # After intersphinx, which has the usual 500.
    app.connect("missing-reference", resolve, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
