"""The tests themselves: what several share lies beside them, so that each can move or go."""

import ast

import pytest

from tests import ROOT


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_test_is_imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(name.name for name in node.names)]
        elif isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        else:
            continue
        assert not [name for name in names if name.split(".")[-1].startswith("test_")], ast.unparse(node)
