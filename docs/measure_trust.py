"""Measure how the error estimates of gradients compare with true errors; draw a mesh that serves u and not lam.

    python -m docs.measure_trust

in the folder of the repository prints the tables of the page "How far to trust a gradient", writes them to docs/measured/trust.md,
trust_interpolating.md, trust_at_rest.md, trust_random.md and trust_losses.md, which takes a quarter of an hour, and draws
docs/measured/trust.svg where there is Matplotlib. Errors are in the scale of logarithmic derivatives, in units of rtol. The
references are those of tests/references/problems.json, computed without adjode, at rest the closed form, and of random problems
forward sensitivities.
"""

import warnings
from pathlib import Path

import numpy as np

import adjode
from adjode.losses import FinalState
from benchmarks.problems import PROBLEMS
from tests.problems.random_losses import outcomes as outcomes_of_losses
from tests.problems.random_problems import outcomes

FOLDER = Path(__file__).parent / "measured"
METHODS = ("BS3", "Tsit5", "RK45", "DOP853", "Vern7", "Vern9")
TOLERANCES = (1e-4, 1e-6, 1e-8, 1e-10)
RANDOM = 10_000
IN_TURN = (  # methods for random problems, and an adjoint
    ((*METHODS[1:], METHODS[0]), "discrete"),
    ((*METHODS[1:], METHODS[0]), "interpolating"),
    (("Radau", "Kvaerno5", "TRBDF2", "auto"), "discrete"),
    (("Radau", "Kvaerno5", "TRBDF2", "Rodas5P", "auto"), "interpolating"),
)


def sizes(u0, theta, rtol, atol):
    return {"u0": np.maximum(np.abs(u0), atol / rtol), "theta": np.where(theta == 0.0, 1.0, np.abs(theta))}


def largest_error(bar, reference, sizes):
    """Of the logarithmic derivatives, as a part of the largest one."""
    off = max(np.max(size * np.abs(getattr(bar, name) - reference[name])) for name, size in sizes.items())
    return off / max(np.max(size * np.abs(reference[name])) for name, size in sizes.items())


def show(units):
    return f"{units:.0f}" if 9.5 <= units < 9999.5 else f"{units:.1g}"


def compare(problem, method, rtol, **options):
    """The estimate and the true error of a gradient, in units of rtol."""
    call = problem.value_and_gradient(method=method, rtol=rtol, atol=rtol, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        _, bar = call()
    error = largest_error(bar, problem.reference, sizes(problem.u0, problem.theta, rtol, rtol))
    return f"{show(bar.error['theta'] / rtol)} : {show(error / rtol)}"


def table(columns, rows):
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows), ""])


def reference_problems(methods=METHODS, tolerances=TOLERANCES, **options):
    rows = []
    for name, build in PROBLEMS.items():
        for method in methods:
            rows.append((f"`{name}`", f"`{method}`", *(compare(build(), method, rtol, **options) for rtol in tolerances)))
    return table(("problem", "`method`", *(f"rtol = atol = {rtol:.0e}" for rtol in tolerances)), rows)


def on_the_first_mesh():
    return reference_problems(on_inaccurate="warn")


def interpolating():
    return reference_problems((*METHODS, "Radau", "Kvaerno5", "Rodas5P"), adjoint="interpolating")


# --- a model at rest: u' = a - b u, u0 = a / b -------------------------------------------------------------------------------


def resting_f(t, u, theta, du):
    du[0] = theta[0] - theta[1] * u[0]


def resting_vjp(t, u, theta, lam, u_bar, theta_bar):
    u_bar[0] = -theta[1] * lam[0]
    theta_bar[0], theta_bar[1] = lam[0], -u[0] * lam[0]


RESTING = np.array([3.0, 2.0])  # a, b


def resting():
    return adjode.Dynamics(resting_f, resting_vjp, name="at rest")


def compare_at_rest(dynamics, bT, rtol, **options):
    """The same for the final state of the resting model, with b T given; steps are shortened where the estimate asks for it."""
    (a, b), u0 = RESTING, RESTING[:1] / RESTING[1:]
    loss, gone = FinalState([1.0]), np.exp(-bT)
    _, bar = adjode.value_and_gradient(dynamics, loss, (0.0, bT / b), rtol=rtol, **options)(u0, RESTING)
    reference = {"u0": np.array([gone]), "theta": np.array([1.0, -a / b]) * (1.0 - gone) / b}
    error = show(largest_error(bar, reference, sizes(u0, RESTING, rtol, 1e-9)) / rtol)
    return error if bar.error is None else f"{show(bar.error['theta'] / rtol)} : {error}"


def at_rest():
    cases = {
        "rtol = 1e-6": (10.0, 1e-6, {}),
        "rtol = 1e-9": (10.0, 1e-9, {}),
        "rtol = 1e-9, T = 5/b": (5.0, 1e-9, {}),
        "rtol = 1e-6, `max_step` = 0.25/b": (10.0, 1e-6, {"max_step": 0.25 / RESTING[1]}),
        'rtol = 1e-6, `"interpolating"`': (10.0, 1e-6, {"adjoint": "interpolating"}),
    }
    dynamics, rows = resting(), []
    for method in (*METHODS, "Radau", "Kvaerno5", "TRBDF2"):
        cells = (compare_at_rest(dynamics, bT, rtol, method=method, **options) for bT, rtol, options in cases.values())
        rows.append((f"`{method}`", *cells))
    return table(("`method`", *cases), rows)


def meshes(theta, T, **options):
    """Step ends of the forward solve of the resting model, and those of the second one, that its gradient has asked for."""
    dynamics, u0, span = resting(), [theta[0] / theta[1]], (0.0, T)
    evaluate = adjode.value_and_gradient(dynamics, FinalState([1.0]), span, **options)
    evaluate(u0, theta)
    (workspace,) = evaluate._idle[1, 2]
    forward = workspace.forward
    return adjode.solve(dynamics, u0, theta, span, **options).t, forward.trajectory.trimmed(forward.steps).t


def write_figure():
    from docs.drawing import BLUE, GREEN, INK, plt, save  # where there is Matplotlib

    theta, T = RESTING, 5.0
    plain, refined = meshes(theta, T, rtol=1e-6)
    figure, (curves, ends) = plt.subplots(2, 1, figsize=(7.6, 4.0), sharex=True, height_ratios=(3, 1))
    t = np.linspace(0.0, T, 251)
    curves.plot(t, np.full(t.size, theta[0] / theta[1]), color=BLUE, label="u(t), at rest")
    curves.plot(t, np.exp(-theta[1] * (T - t)), color=GREEN, label=r"$\lambda(t)$, exact")
    curves.set_ylim(0.0, 1.7)
    curves.legend(loc="center left")
    for level, mesh in ((1.0, plain), (0.0, refined)):
        ends.plot(mesh, np.full(mesh.size, level), "|", color=INK, markersize=14)
    ends.set_yticks([1.0, 0.0], [f"solve: {plain.size - 1} steps", f"shortened: {refined.size - 1}"])
    ends.set(ylim=(-0.6, 1.6), xlabel="t")
    save(figure, "measured/trust.svg")


def random_problems():
    """How many gradients of random problems are off by more than 100 units, and how many are refused."""
    rows = []
    for methods, adjoint in IN_TURN:
        found = list(outcomes(range(RANDOM), methods, adjoint).values())
        rows.append((", ".join(methods), f'`"{adjoint}"`', *(str(found.count(one)) for one in ("right", "wrong", "refused"))))
    return table(("methods in turn", "`adjoint`", "right", "wrong", "refused"), rows)


def random_losses():
    """The same with observations or a running cost, along `solve` and `pullback`, and the cotangents of t0 and T."""
    rows = []
    for methods, adjoint in IN_TURN:
        for has_cost in (False, True):
            found = outcomes_of_losses(range(RANDOM), methods, adjoint, has_cost).values()
            counts = [sum(one == name for one, _ in found) for name in ("right", "wrong", "refused")]
            counts.append(sum(not times for _, times in found))
            loss = "running cost" if has_cost else "observations"
            rows.append((", ".join(methods), f'`"{adjoint}"`', loss, *map(str, counts)))
    return table(("methods in turn", "`adjoint`", "loss", "right", "wrong", "refused", "times wrong"), rows)


def main():
    parts = {
        "trust.md": on_the_first_mesh,
        "trust_interpolating.md": interpolating,
        "trust_at_rest.md": at_rest,
        "trust_random.md": random_problems,
        "trust_losses.md": random_losses,
    }
    for name, part in parts.items():
        text = part()
        print(text)
        (FOLDER / name).write_text(text)
    try:
        write_figure()
    except ImportError:
        print("The figure needs matplotlib: it was not drawn.")


if __name__ == "__main__":
    main()
