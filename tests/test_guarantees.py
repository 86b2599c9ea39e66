"""The page of guarantees names tests that exist, and every guarantee has some."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"\]\(\.\./([^)]+)\) \(`(\w+)`\)", PAGE)


def functions_in(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize(("file", "name"), SHOWN, ids=[name for _, name in SHOWN])
def test_linked_test_exists(file, name):
    """A link on the page leads to a file that has the test."""
    assert name in functions_in(ROOT / file)


@pytest.mark.parametrize("number", range(1, 17))
def test_guarantee_has_a_proof(number):
    """Each guarantee that is made has a section with at least one link."""
    section = PAGE.partition(f"\n## G{number}: ")[2].partition("\n## ")[0]
    assert "](../" in section
    assert f"{{proofs}} G{number}\n" in section
