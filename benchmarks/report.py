"""The tables and the figure of benchmarks/compare.py."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

FAST, PLAIN = "-O3 -ffast-math", "-O3"
TARGETS = (1e-4, 1e-6, 1e-8)
COLOURS = {
    "floor": "black",
    "cvodes": "dimgray",
    "adjode": "tab:red",
    "heyoka": "tab:blue",
    "numbalsoda": "tab:green",
    "diffrax": "tab:purple",
    "casadi": "tab:orange",
    "pydiffsol": "tab:brown",
    "torchdiffeq": "tab:pink",
    "scipy": "tab:gray",
}
MARKERS = "osD^vPX*<>hp"


def table(columns, rows) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def micro(seconds: float | None) -> str:
    """Microseconds to three digits."""
    if seconds is None:
        return ""
    value = 1e6 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def unique(rows, key) -> list:
    return list(dict.fromkeys(row[key] for row in rows))


def sought(case: str) -> str:
    return "Jacobian" if case.startswith("J_") else "gradient"


def speed(results: dict[str, Any]) -> str:
    """Work and precision: for each problem, times and errors at each tolerance."""
    parts = []
    for case in unique(results["speed"], "case"):
        cells = [cell for cell in results["speed"] if cell["case"] == case]
        tolerances = unique(cells, "tol")
        columns = ["contender", *(f"{tol:.0e}: µs | error" for tol in tolerances)]
        rows = []
        for name in unique(cells, "contender"):
            by_tol = {cell["tol"]: cell for cell in cells if cell["contender"] == name}
            rows.append([name, *(" | ".join(_cell(by_tol.get(tol))) for tol in tolerances)])
        columns = " | ".join(columns).split(" | ")
        parts.append(f"**{case}**: least / median time, and error of the {sought(case)}\n\n{table(columns, rows)}")
    failed = [cell for cell in results["speed"] if cell["failure"]]
    if failed:
        rows = [(cell["contender"], cell["case"], f"{cell['tol']:.0e}", _one_line(cell["failure"])) for cell in failed]
        parts.append(f"**Failed**\n\n{table(('contender', 'problem', 'tolerance', 'message'), rows)}")
    return "\n".join(parts)


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "/")[:200]


def _cell(cell) -> tuple[str, str]:
    if cell is None:
        return "", ""
    if "min" not in cell or cell["failure"]:
        return "failed", ""
    return f"{micro(cell['min'])} / {micro(cell['median'])}", f"{cell['error']:.0e}"


def points(results: dict[str, Any], case: str, contender: str) -> list[tuple[float, float]]:
    """(error, least time) of a contender, in the order of the tolerances."""
    return [
        (max(cell["error"], 1e-16), cell["min"])
        for cell in results["speed"]
        if (cell["case"], cell["contender"]) == (case, contender) and "min" in cell and not cell["failure"]
    ]


def seconds_to_reach(measured: list[tuple[float, float]], target: float) -> float | None:
    """The least time at which the error is `target` or less; between neighbouring tolerances, on a line in logarithms."""
    found = [seconds for error, seconds in measured if error <= target]
    for (error_0, seconds_0), (error_1, seconds_1) in itertools.pairwise(measured):
        if error_1 < target < error_0:
            part = math.log(target / error_0) / math.log(error_1 / error_0)
            found.append(seconds_0 * (seconds_1 / seconds_0) ** part)
    return min(found, default=None)


def precision(results: dict[str, Any]) -> str:
    """Times to reach the same errors; the least of each column in bold, the floor apart."""
    cases, contenders = unique(results["speed"], "case"), unique(results["speed"], "contender")
    peer = {cell["contender"]: cell["peer"] for cell in results["speed"]}
    columns = [(case, target) for case in cases for target in results.get("errors", TARGETS)]
    times = {name: [seconds_to_reach(points(results, case, name), target) for case, target in columns] for name in contenders}
    best = [
        min((times[name][k] for name in contenders if peer[name] != "floor" and times[name][k]), default=None)
        for k in range(len(columns))
    ]
    rows = [
        [name, *(f"**{micro(t)}**" if t is not None and t == best[k] else micro(t) for k, t in enumerate(times[name]))]
        for name in contenders
    ]
    return table(["contender", *(f"{case}, {target:.0e}" for case, target in columns)], rows)


def floor(results: dict[str, Any]) -> str:
    """adjode's times over those of the same algorithm in C at the same tolerance."""
    least = {(cell["contender"], cell["case"], cell["tol"]): cell.get("min") for cell in results["speed"]}
    rows = []
    for cell in results["speed"]:
        if not cell["floor"] or "min" not in cell:
            continue
        row = [cell["contender"], cell["case"], f"{cell['tol']:.0e}", micro(cell["min"])]
        for flags in (PLAIN, FAST):
            below = least.get((f"floor: {cell['floor']}, gcc {flags}", cell["case"], cell["tol"]))
            row += [micro(below), f"{cell['min'] / below:.2f}" if below else ""]
        rows.append(row)
    return table(("contender", "problem", "tolerance", "µs", "C, -O3: µs", "ratio", "C, -ffast-math: µs", "ratio"), rows)


def startup(results: dict[str, Any]) -> str:
    rows = []
    for row in results["startup"]:
        if "failure" in row:
            rows.append((row["contender"], row["case"], "failed: " + _one_line(row["failure"]), "", "", ""))
            continue
        memory = [f"{size / 2**20:.0f}" if size else "" for size in (row["empty_bytes"], row["full_bytes"])]
        seconds = [f"{row[key]:.2f}" for key in ("empty_seconds", "full_seconds")]
        rows.append((row["contender"], row["case"], *seconds, *memory))
    columns = ("contender", "problem", "s, empty cache", "s, later process", "MiB, empty cache", "MiB, later process")
    return table(columns, rows)


def setup(results: dict[str, Any]) -> str:
    machine = results["machine"]
    lines = [f"Measured on {machine['date']}: {machine['processor']}, Python {machine['python']}.", ""]
    rows = [
        (peer, ", ".join(f"{name} {version}" for name, version in found.items())) for peer, found in results["versions"].items()
    ]
    rows += [(peer, why) for peer, why in results["absent"].items()]
    return "\n".join(lines) + "\n" + table(("library", "versions"), [row for row in rows if row[1]])


def figure(results: dict[str, Any], path: Path) -> None:
    """Time over error, one panel for each problem; one colour for each library."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "adjode"
    import matplotlib.pyplot as plt

    cases = unique(results["speed"], "case")
    panels, axes = plt.subplots(1, len(cases), figsize=(4.6 * len(cases), 8.2), squeeze=False, sharey=True)
    for axis, case in zip(axes[0], cases, strict=True):
        seen: dict[str, int] = {}
        for name in unique(results["speed"], "contender"):
            peer = name.split(":")[0]
            measured = points(results, case, name)
            style = _style(name, peer, seen)
            if measured:
                axis.loglog(*zip(*[(error, 1e6 * seconds) for error, seconds in measured], strict=True), label=name, **style)
        axis.set(title=case, xlabel=f"relative error of the {sought(case)}")
        axis.invert_xaxis()
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel(f"µs for a value and its {sought(cases[0])}")
    handles = {label: line for axis in axes[0] for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    panels.legend(handles.values(), handles.keys(), loc="lower center", ncols=3, fontsize=7, frameon=False)
    panels.tight_layout(rect=(0, 0.0195 * math.ceil(len(handles) / 3), 1, 1))
    panels.savefig(path, metadata={"Date": None})
    plt.close(panels)


def _style(name: str, peer: str, seen: dict[str, int]) -> dict[str, Any]:
    count = seen[peer] = seen.get(peer, -1) + 1
    dashed = "portable" in name or FAST in name
    return {
        "color": COLOURS.get(peer, "tab:olive"),
        "marker": MARKERS[count % len(MARKERS)],
        "markersize": 4,
        "linewidth": 1.0,
        "linestyle": "--" if dashed else "-",
        "alpha": 0.9,
    }


PARTS = {"setup": setup, "speed": speed, "precision": precision, "floor": floor, "startup": startup}


def write(results: dict[str, Any], folder: Path | None) -> None:
    """Print all tables; write them, the numbers and the figure into the folder."""
    left_out = {"floor"} if all(cell["floor"] is None for cell in results["speed"]) else set()
    left_out |= set() if results["startup"] else {"startup"}
    texts = {name: part(results) for name, part in PARTS.items() if name not in left_out}
    print("\n".join(texts.values()))
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.md").write_text(text)
    (folder / "compare.json").write_text(json.dumps(results, indent=1) + "\n")
    try:
        figure(results, folder / "compare.svg")
    except ImportError:
        print("The figure needs matplotlib: it was not drawn.")
