"""The least program that is still wrong: `python -m tests.derivation.reducing SEED ...`."""

from __future__ import annotations

import ast
import copy
import re
import sys
from collections.abc import Iterator
from dataclasses import replace

from tests.derivation.checking import verdict
from tests.derivation.programs import Program
from tests.derivation.statements import generate


def smaller(tree: ast.Module) -> Iterator[ast.Module]:
    """Trees with one statement less, or with an expression in place of one that contains it."""
    for k, node in enumerate(ast.walk(tree)):
        for name, value in ast.iter_fields(node):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                for j, statement in enumerate(value):
                    inside = getattr(statement, "body", [])
                    for instead in ([], inside) if inside and not isinstance(statement, ast.FunctionDef) else ([],):
                        changed = copy.deepcopy(tree)
                        at = list(ast.walk(changed))[k]
                        getattr(at, name)[j : j + 1] = copy.deepcopy(instead)
                        yield changed
            for j, part in enumerate(value if isinstance(value, list) else [value]):
                if isinstance(part, ast.expr) and not isinstance(part, (ast.Name, ast.Constant)):
                    for child in [*(c for c in ast.iter_child_nodes(part) if isinstance(c, ast.expr)), ast.Constant(0.5)]:
                        changed = copy.deepcopy(tree)
                        at = list(ast.walk(changed))[k]
                        if isinstance(value, list):
                            getattr(at, name)[j] = copy.deepcopy(child)
                        else:
                            setattr(at, name, copy.deepcopy(child))
                        yield changed


def sort_of(text: str) -> str:
    return re.sub(r"\d+|\[.*", "", text)[:40]


def reduced(program: Program) -> Program:
    """A program that is wrong in the same way."""
    wanted = sort_of(verdict(program))
    while True:
        for tree in smaller(ast.parse(program.text)):
            try:
                tried = replace(program, text=ast.unparse(ast.fix_missing_locations(tree)) + "\n")
                if len(tried.text) < len(program.text) and sort_of(verdict(tried)) == wanted:
                    program = tried
                    break
            except Exception:
                continue
        else:
            return program


def main() -> None:
    for seed in map(int, sys.argv[1:]):
        least = reduced(generate(seed))
        print(f"--- seed {seed}, n = {least.n}, m = {least.m}: {verdict(least)}\n{least.text}", flush=True)


if __name__ == "__main__":
    main()
