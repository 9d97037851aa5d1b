"""Draw the two figures of the readme: the fit of hare and lynx, and how long other libraries take for the same gradients.

    python -m docs.draw_readme

in the folder of the repository writes docs/readme.svg and docs/measured/ratios.svg. The second is drawn from
docs/measured/compare.json, which `make compare` measures anew.
"""

import itertools
import json
import sys

import numpy as np

from benchmarks.report import points, seconds_to_reach, unique
from docs.drawing import BLUE, DOCS, FAINT, INK, ORANGE, plt, save

sys.path.append(str(DOCS.parent / "examples"))
import hare_lynx

ERROR = 1e-6
PROBLEMS = {
    "lv_final": "Lotka-Volterra,\nloss at the end",
    "lv_series": "Lotka-Volterra,\n100 observations",
    "spiral": "neural network,\n252 parameters",
}
# The contenders of each bar; of several the fastest counts, for every library alike.
BARS = {
    "adjode, fused": "adjode: fused",
    "adjode, as it comes": "adjode: portable",
    "the same in C, gcc -O3 -ffast-math": "ffast-math",
    "the same in C, gcc -O3": "gcc -O3",
    "heyoka": "heyoka",
    "numbalsoda": "numbalsoda",
    "CasADi": "casadi",
    "diffrax (JAX)": "diffrax",
    "pydiffsol": "pydiffsol",
    "SciPy, right-hand side in Numba": "scipy",
    "torchdiffeq (PyTorch)": "torchdiffeq",
}


def draw_fit():
    fit = hare_lynx.build_fit()
    result = fit.least_squares()
    t = np.concatenate([np.linspace(a + 1e-9, b - 1e-9, 16) for a, b in itertools.pairwise(hare_lynx.T_OBS)])  # lam jumps between
    band = fit.predict(t)
    _, lam = hare_lynx.adjoint_at(fit, result.u0, result.theta)
    figure, (series, adjoint) = plt.subplots(2, 1, figsize=(8.4, 5.0), sharex=True, height_ratios=(3, 2))
    year = hare_lynx.YEAR[0] + t
    for i, (animal, colour) in enumerate((("hare", ORANGE), ("lynx", BLUE))):
        series.fill_between(year, band.low[:, i], band.high[:, i], color=colour, alpha=0.25, linewidth=0)
        series.plot(year, band.u[:, i], color=colour, label=f"{animal}: fit and 95 % band")
        series.plot(hare_lynx.YEAR, hare_lynx.PELTS[:, i], "o", color=colour, markersize=4.5, label=f"{animal}: pelts")
        adjoint.plot(year, lam(t)[:, i], color=colour, label=f"$\\lambda$ of the {animal}")
    series.set(ylabel="thousand pelts", ylim=(0, 118), xlim=(1899.6, 1920.4))
    series.legend(ncols=2, loc="upper center")
    adjoint.axhline(0.0, color=FAINT, linewidth=1.0, zorder=0)
    adjoint.set(xlabel="year", ylabel="$\\lambda = dL/du$\n(per thousand pelts)", ylim=(-1.5, 1.5), xticks=hare_lynx.YEAR[::4])
    adjoint.legend(ncols=2, loc="upper right")
    save(figure, "readme.svg")


def fastest(results, case, text):
    """The least time of a library's contenders to reach ERROR."""
    names = [name for name in unique(results["speed"], "contender") if text in name and (text != "gcc -O3" or name.endswith(text))]
    found = [seconds_to_reach(points(results, case, name), ERROR) for name in names]
    return min((seconds for seconds in found if seconds is not None), default=None)


def ratios(results):
    """Times of all bars over that of the first, in each problem."""
    times = {case: [fastest(results, case, text) for text in BARS.values()] for case in PROBLEMS}
    return {case: [seconds / row[0] if seconds else None for seconds in row] for case, row in times.items()}


def draw_ratios():
    results = json.loads((DOCS / "measured" / "compare.json").read_text())
    figure, panels = plt.subplots(1, 3, figsize=(10.0, 3.9), sharey=True)
    for axes, (case, row) in zip(panels, ratios(results).items(), strict=True):
        for k, ratio in enumerate(row):
            colour = ORANGE if k < 2 else FAINT if k < 4 else BLUE
            axes.barh(k, ratio - 0.3, left=0.3, color=colour, height=0.72)
            axes.text(ratio * 1.25, k, f"{ratio:.2g}" if ratio < 10 else f"{ratio:,.0f}", va="center", fontsize=10)
        axes.axvline(1.0, color=INK, linewidth=0.8)
        axes.set(xscale="log", xlim=(0.3, 1e6), title=PROBLEMS[case], xticks=(1, 100, 1e4), xticklabels=("1", "100", "10,000"))
        axes.minorticks_off()
    panels[0].set_yticks(range(len(BARS)), BARS)
    panels[0].invert_yaxis()
    error = f"$10^{{{np.log10(ERROR):.0f}}}$"
    panels[1].set_xlabel(f"time of a value and its gradient, over that of adjode (fused), at an error of {error}")
    save(figure, "measured/ratios.svg")


if __name__ == "__main__":
    draw_ratios()
    draw_fit()
