"""The plan of the package: its rooms in CONTRIBUTING.md, in the contract on layers and in the picture; the sizes of its parts."""

import ast
import re

from docs import draw_house
from tests import ROOT

FILES = sorted((ROOT / "adjode").rglob("*.py"))


def test_the_table_of_rooms_is_the_contract():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    table = text.partition("| room | what it holds |\n|---|---|\n")[2].partition("\n\n")[0]
    listed = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert listed == [room for row in draw_house.layers() for room in row]


def test_every_room_exists_and_imports_only_from_below():
    layers = draw_house.layers()
    floor = {room: k for k, row in enumerate(layers) for room in row}
    modules = [path for path in (ROOT / "adjode").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    there = {path.name.removesuffix(".py") for path in modules}
    assert set(floor) == there - {"__init__"}
    assert all(floor[room] < floor[other] for room, other in draw_house.imports())
    assert "ignore_imports" not in (ROOT / "pyproject.toml").read_text()


def test_the_picture_is_drawn_from_the_imports():
    assert draw_house.PICTURE.read_text() == draw_house.draw(), "python -m docs.draw_house"


def test_files_that_answer_questions_exist():
    answers = re.findall(r"^\| [A-Z].*\? \| (.*) \|$", (ROOT / "docs" / "extend.md").read_text(), re.MULTILINE)
    assert len(answers) == 6
    for file in re.findall(r"`([\w/]+\.py)`", " ".join(answers)):
        assert (ROOT / "adjode" / file).exists(), file


def lines_of(node):
    """Lines of a function with all that is nested in it, but for docstrings."""
    first = min(part.lineno for part in (node, *node.decorator_list))
    inside = [one for one in ast.walk(node) if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    texts = [one.body[0] for one in inside if ast.get_docstring(one, clean=False) is not None]
    return node.end_lineno - first + 1 - sum(text.end_lineno - text.lineno + 1 for text in texts)


def test_no_function_is_longer_than_60_lines_and_no_module_than_400():
    """A factory counts with the kernels in it."""
    long = []
    for file in FILES:
        text = file.read_text()
        if text.count("\n") > 400:
            long.append(f"{file.name}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and lines_of(node) > 60:
                long.append(f"{file.name}, {node.name}: {lines_of(node)} lines")
    assert long == []


def test_complexity_is_checked_everywhere():
    text = (ROOT / "pyproject.toml").read_text()
    assert "C901" not in text and not any("C901" in file.read_text() for file in FILES)
