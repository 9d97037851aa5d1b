"""Draw the rooms of the package and what they import, `python -m docs.draw_house`: docs/house.svg.

Rows are the layers that import-linter checks, from pyproject.toml; a line is drawn where a room imports from another, thicker the
more of its files do.
"""

from __future__ import annotations

import ast
import tomllib
from collections import Counter
from collections.abc import Iterator
from html import escape
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "adjode"
PICTURE = ROOT / "docs" / "house.svg"

_WIDTH, _ROW, _BOX, _MARGIN = 860, 62, (150, 34), 16
_STYLE = """
    text { font: 14px system-ui, sans-serif; fill: #1b2733; text-anchor: middle; dominant-baseline: central; }
    rect { fill: #eef3f8; stroke: #4a6a8a; rx: 5; }
    path { fill: none; stroke: #4a6a8a; opacity: 0.3; }
    path:hover { opacity: 1; }
    @media (prefers-color-scheme: dark) {
        text { fill: #e6edf3; } rect { fill: #22303c; stroke: #8fb0d0; } path { stroke: #8fb0d0; }
    }
"""


def layers() -> list[list[str]]:
    """The rooms, from the front of the street to its end; those in a row know nothing of each other."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    street = next(contract for contract in contracts if contract["id"] == "street")
    return [[room.strip() for room in row.split("|")] for row in street["layers"]]


def imports() -> Counter[tuple[str, str]]:
    """How many files of a room import from another: {(room, imported): number}."""
    found: Counter[tuple[str, str]] = Counter()
    for file in sorted(PACKAGE.rglob("*.py")):
        room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room != "__init__":
            found.update({(room, other) for other in _imported_rooms(ast.parse(file.read_text())) if other != room})
    return found


def _imported_rooms(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "adjode":
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("adjode."):
            yield node.module.split(".")[1]  # type: ignore[union-attr]
        elif isinstance(node, ast.Import):
            yield from (name.name.split(".")[1] for name in node.names if name.name.startswith("adjode."))


def places() -> dict[str, tuple[float, float]]:
    """The middle of each room's box."""
    found = {}
    for k, row in enumerate(layers()):
        for i, room in enumerate(row):
            shift = 46 * (-1) ** k if len(row) == 1 else 0  # so that lines to rows further down pass beside the boxes between
            found[room] = (_WIDTH * (i + 1) / (len(row) + 1) + shift, _MARGIN + _ROW * k + _BOX[1] / 2)
    return found


def draw() -> str:
    at, (width, height) = places(), _BOX
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {2 * _MARGIN + _ROW * len(layers()) - (_ROW - height)}" '
        f'role="img" aria-label="The rooms of adjode and what they import">',
        f"<style>{_STYLE}</style>",
    ]
    for (room, other), number in sorted(imports().items()):
        if room in at and other in at:
            (x, y), (to_x, to_y) = at[room], at[other]
            bend = (x + to_x) / 2 + 0.35 * (to_y - y) * (1 if (len(room) + len(other)) % 2 else -1)
            lines.append(
                f'<path d="M {x:.0f} {y + height / 2:.0f} Q {bend:.0f} {(y + to_y) / 2:.0f} {to_x:.0f} {to_y - height / 2:.0f}" '
                f'stroke-width="{min(0.6 + 0.35 * number, 5):.1f}"><title>{escape(room)} imports {escape(other)}</title></path>'
            )
    for room, (x, y) in at.items():
        lines.append(f'<rect x="{x - width / 2:.0f}" y="{y - height / 2:.0f}" width="{width}" height="{height}"/>')
        lines.append(f'<text x="{x:.0f}" y="{y:.0f}">{escape(room)}</text>')
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(draw())
    print(f"drawn: {PICTURE.relative_to(ROOT)}")
