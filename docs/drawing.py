"""How the figures of the readme and of the documentation look: transparent, with ink that can be read on white and on black."""

import io
import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

DOCS = Path(__file__).parent
FOLDER = DOCS  # where figures are written
INK, FAINT = "#76808c", "#76808c55"
BLUE, ORANGE, GREEN, RED = "#3f8fd2", "#e07b28", "#2f9e62", "#d9534f"

plt.rcParams.update(
    {
        "svg.hashsalt": "adjode",  # the same ids in each run
        "savefig.transparent": True,
        "font.size": 11,
        "figure.constrained_layout.use": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 11,
        "legend.frameon": False,
        "legend.fontsize": 10,
        "lines.linewidth": 1.8,
        **dict.fromkeys(
            ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color"),
            INK,
        ),
    }
)


def save(figure, name):
    """Write docs/NAME as SVG, the same bytes in each run."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    plt.close(figure)
    seen = re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.5g}", text.getvalue())  # no digits that nobody sees
    (FOLDER / name).write_text(seen)
    print(f"drawn: docs/{name}")


def box(axes, at, text, colour=INK, **style):
    """A text in a frame with round corners, its middle at `at`."""
    frame = {"boxstyle": "round,pad=0.45", "facecolor": "none", "edgecolor": colour, "linewidth": 1.3}
    return axes.text(*at, text, ha="center", va="center", bbox=frame, **style)


def arrow(axes, start, end, text="", colour=INK, shift=(0.0, 0.0), **style):
    """An arrow between two places, with a text beside its middle."""
    line = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.3, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 14, **style}
    axes.annotate("", end, start, arrowprops=line)
    middle = [(a + b) / 2 + d for a, b, d in zip(start, end, shift, strict=True)]
    axes.text(*middle, text, ha="center", va="center", color=colour)
