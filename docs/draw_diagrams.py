"""Draw the diagrams: two paths to a gradient, the tiers, and which method and adjoint to take.

    python -m docs.draw_diagrams

in the folder of the repository writes docs/square.svg, docs/tiers.svg and docs/decision.svg.
"""

from docs.drawing import BLUE, GREEN, INK, ORANGE, arrow, box, plt, save


def canvas(width, height):
    """Axes whose units are inches, without a frame."""
    figure, axes = plt.subplots(figsize=(width, height))
    axes.set(xlim=(0.0, width), ylim=(0.0, height), aspect="equal")
    axes.axis("off")
    return figure, axes


def draw_square():
    figure, axes = canvas(9.0, 3.9)
    left, right, top, bottom = 1.9, 7.1, 3.2, 0.8
    box(axes, (left, top), "differential equation\n$u' = f(t, u, \\theta)$")
    box(axes, (right, top), "steps\n$u_{k+1} = \\Phi(u_k, \\theta)$")
    box(axes, (left, bottom), "adjoint equation\n$\\lambda' = -(\\partial f/\\partial u)^T \\lambda$", BLUE)
    box(axes, (right, bottom), "gradient", GREEN)
    arrow(axes, (3.1, top), (5.95, top), "discretise", ORANGE, (0.0, 0.2))
    arrow(axes, (right, 2.72), (right, 1.12), "transpose each step:\nexact to rounding", ORANGE, (0.95, 0.0))
    arrow(axes, (left, 2.72), (left, 1.3), "differentiate", BLUE, (-0.75, 0.0))
    arrow(axes, (3.1, bottom), (6.4, bottom), "discretise, with its own steps:\nto a tolerance", BLUE, (0.0, -0.4))
    axes.text(4.5, 2.35, 'adjoint="discrete": of the numbers computed', ha="center", color=ORANGE)
    axes.text(4.5, 1.65, 'adjoint="interpolating": of the equation', ha="center", color=BLUE)
    axes.text(4.5, 2.0, "they differ by the size of the tolerances", ha="center", style="italic")
    save(figure, "square.svg")


def draw_tiers():
    figure, axes = canvas(9.4, 4.1)
    box(axes, (1.35, 3.3), "f, in Python")
    box(axes, (1.35, 1.9), "vjp, jvp, jac\nderived or by hand")
    arrow(axes, (1.35, 3.05), (1.35, 2.3))
    rows = (
        (
            3.4,
            "portable",
            "callbacks compiled by themselves; solver, method and\nadjoint compiled once for all models, calling them by address",
            INK,
        ),
        (
            2.1,
            "fused=True",
            "each pass compiled for these callbacks, this method\nand these sizes: inlined, constants folded",
            ORANGE,
        ),
        (0.8, 'backend="cuda"', "one kernel for the whole ensemble:\na thread of the GPU for each trajectory", GREEN),
    )
    for y, name, text, colour in rows:
        box(axes, (3.9, y), name, colour)
        axes.text(5.0, y, text, va="center", fontsize=10)
        arrow(axes, (2.55, 2.1 + 0.15 * (y - 2.1)), (3.05, y), colour=colour)
    axes.text(1.35, 0.7, "the same source of\nkernels for all three", ha="center", va="center", style="italic")
    save(figure, "tiers.svg")


def draw_decision():
    figure, axes = canvas(9.6, 6.4)
    x, answer = 2.2, 6.9
    steps = (
        (
            5.9,
            "stiff, or stiff for some\nparameters of a fit?",
            'method="auto"; "Radau" if it is stiff\nall along, or has a mass matrix',
        ),
        (4.8, "tolerances\nbelow 1e-8?", 'method="DOP853"; "Vern9" close to rounding'),
        (3.7, "f not smooth, and the\ntimes unknown?", 'method="BS3"; events where the state decides'),
        (2.1, "the gradient of the equation\nto a tolerance of its own, or $\\lambda(t)$?", 'adjoint="interpolating"'),
        (1.0, "more steps than memory?", 'memory="1 GB", with either adjoint'),
    )
    axes.text(0.1, 6.3, "which method", color=BLUE, weight="bold", va="center")
    axes.text(0.1, 2.75, "which adjoint", color=BLUE, weight="bold", va="center")
    for k, (y, text, found) in enumerate(steps):
        box(axes, (x, y), text)
        box(axes, (answer, y), found, GREEN)
        arrow(axes, (3.85, y), (4.75, y), "yes", GREEN, (0.0, 0.17))
        if k not in (2, 4):
            arrow(axes, (x, y - 0.38), (x, y - 0.74), "no", INK, (0.25, 0.0))
    for y, text in ((3.0, 'no: the default, method="Tsit5"'), (0.3, 'no: the default of fits, adjoint="discrete"')):
        box(axes, (answer, y), text, ORANGE)
    for start, y in ((3.32, 3.0), (0.75, 0.3)):
        axes.plot([x, x], [start, y], color=INK, linewidth=1.3)
        arrow(axes, (x, y), (5.2, y))
    save(figure, "decision.svg")


if __name__ == "__main__":
    draw_square()
    draw_tiers()
    draw_decision()
