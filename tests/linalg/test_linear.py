"""LU in every storage, real and complex, plain and transposed: against NumPy, in units of the condition number."""

import functools
import itertools
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from adjode.compile import slots
from adjode.compile.entries import entry
from adjode.compile.flags import DISABLED, f8, i8
from adjode.compile.frame import Frame, opened
from adjode.compile.watch import raise_kept
from adjode.linalg import linear
from adjode.linalg.linear import make_linear
from adjode.linalg.structure import KINDS, Structure, as_pattern, choose_structure
from adjode.linalg.superlu import SuperLU
from adjode.linalg.symbolic import FIRST, ROW_STARTS, WIDEST, WORK

FACTOR, SOLVE, SOLVE_TRANSPOSED = range(3)


@functools.cache
def solver(kind, is_complex):
    """An entry that shifts and factors, or solves, by the kernels of one kind."""
    made = make_linear(kind)
    if is_complex:
        shift, factor, solve, solve_transposed = (
            made.shift_complex,
            made.factor_complex,
            made.solve_complex,
            made.solve_transposed_complex,
        )
    else:
        shift, factor, solve, solve_transposed = made.shift, made.factor, made.solve, made.solve_transposed
    lu, pivots_of = (slots.LU_COMPLEX, slots.PIVOTS_COMPLEX) if is_complex else (slots.LU, slots.PIVOTS)

    def run(address, verb, re, im, s):
        frame = opened(address)
        A, pivots, b = lu(frame), pivots_of(frame), slots.UNIT(frame)
        if verb == FACTOR:
            if is_complex:
                shift(frame, slots.JACOBIAN(frame), A, re, im, s)
            else:
                shift(frame, slots.JACOBIAN(frame), A, re, s)
            return factor(frame, A, pivots)
        if verb == SOLVE:
            return solve(frame, A, pivots, b)
        return solve_transposed(frame, A, pivots, b)

    return entry(run, (i8, i8, f8, f8, f8), f"linear-{kind}-{is_complex}", None)


class System:
    """c I + s J in one storage, to be factored and solved."""

    def __init__(self, kind, pattern, J):
        self.n, self.J, self.frame = len(J), J, Frame()
        structure = Structure(kind, self.n, pattern)
        structure.put(self.frame)
        rows, columns = structure.entries
        self.frame[slots.JACOBIAN].reshape(-1)[structure.places(rows, columns)] = J[rows, columns]
        self.kind = kind

    def run(self, verb, *, c=0.0, s=1.0, b=None):
        is_complex = isinstance(c, complex)
        if b is not None:
            self.frame[slots.UNIT] = np.array(b).view(float).copy()
        status = solver(self.kind, is_complex)(self.frame.argument, verb, c.real, c.imag, s)
        return status if b is None else self.frame[slots.UNIT].view(type(c))

    def check(self, c, s=1.0):
        """Factor, then solve both ways: errors in units of rounding and condition."""
        A = c * np.eye(self.n) + s * self.J
        assert self.run(FACTOR, c=c, s=s) == 0
        b = np.random.default_rng(1).normal(size=2 * self.n).view(complex)
        b = b if isinstance(c, complex) else b.real
        limit = 100 * np.finfo(float).eps * max(1, self.n)
        for verb, matrix in ((SOLVE, A), (SOLVE_TRANSPOSED, A.T)):
            x = self.run(verb, c=c, b=b)
            # backward stable: the residual is small beside |A| |x|, however ill-conditioned A is
            assert np.abs(matrix @ x - b).max(initial=0) <= limit * (np.abs(matrix) @ np.abs(x)).max(initial=1.0)


SHIFTS = pytest.mark.parametrize("c", [3.5, -1.25 + 2.0j], ids=["real", "complex"])


@SHIFTS
@pytest.mark.parametrize("n", [0, 1, 2, 3, 5, 8, 32, 33, 100])
def test_dense(n, c):
    J = np.random.default_rng(n).normal(size=(n, n))
    System("dense", None, J).check(c)
    System("dense", None, J).check(c, s=-1.0)


def band(n, lower, upper, seed=0):
    J = np.random.default_rng(seed).normal(size=(n, n))
    return np.triu(np.tril(J, upper), -lower)


def pattern_of(J):
    return as_pattern(sparse.csc_array(J != 0))


WIDTHS = [
    (1, 0, 0),
    (2, 1, 0),
    (2, 0, 1),
    (5, 4, 4),
    (6, 0, 3),
    (6, 3, 0),
    (7, 1, 1),
    (9, 2, 5),
    (12, 5, 2),
    (120, 40, 3),
    (120, 3, 40),
]


@SHIFTS
@pytest.mark.parametrize(("n", "lower", "upper"), WIDTHS)
def test_banded(n, lower, upper, c):
    J = band(n, lower, upper)
    J[np.diag_indices(n)] = 0.0  # so that rows are exchanged
    System("banded", pattern_of(J), J).check(0.01 * c)


def random_sparse(n, density, seed=0):
    rng = np.random.default_rng(seed)
    return np.where(rng.random((n, n)) < density, rng.normal(size=(n, n)), 0.0)


@SHIFTS
@pytest.mark.parametrize(("n", "density"), [(0, 0.0), (1, 1.0), (5, 0.3), (30, 0.1), (30, 1.0), (200, 0.02)])
def test_sparse(n, density, c):
    """With a large diagonal the pivots lie on it; with a small one SuperLU exchanges rows."""
    J = random_sparse(n, density)
    J[np.diag_indices(n)] = 0.0
    for size, by_superlu in ((20.0, 0), (1e-6, 1)):
        if n < 30 and by_superlu:
            continue  # too small to need it, or singular
        system = System("sparse", pattern_of(J), J)
        system.check(size * c, s=-1.0)
        pivots = system.frame[slots.PIVOTS_COMPLEX if isinstance(c, complex) else slots.PIVOTS]
        assert pivots[:1].tolist() == [by_superlu][:n]


@pytest.mark.skipif(DISABLED, reason="plain Python lets it pass at once")
@SHIFTS
def test_what_interrupts_superlu_is_kept(c, monkeypatch):
    """Its result is then no number, and that of no other system."""
    J = random_sparse(30, 0.1)
    J[np.diag_indices(30)] = 0.0
    system, b = System("sparse", pattern_of(J), J), np.ones(30, dtype=type(c))
    system.check(1e-6 * c)

    def interrupted(self, verb, is_complex, A, b):
        raise KeyboardInterrupt(verb)

    with monkeypatch.context() as patch:
        patch.setattr(SuperLU, "_run", interrupted)
        for verb in (SOLVE, SOLVE_TRANSPOSED):
            assert np.isnan(system.run(verb, c=1e-6 * c, b=b)).all()
            with pytest.raises(KeyboardInterrupt, match=str(verb)):
                raise_kept()
        assert system.run(FACTOR, c=1e-6 * c) == 1
        with pytest.raises(KeyboardInterrupt):
            raise_kept()
    system.check(1e-6 * c)
    raise_kept()  # nothing is left


@pytest.mark.jitted
def test_factors_are_freed_with_what_made_them():
    """Compiled code calls it by an address, which does not keep it."""
    solver = SuperLU(sparse.csc_array(np.eye(2)))
    gone = weakref.ref(solver)
    del solver
    assert gone() is None


def grid_pattern(points):
    line = sparse.diags_array([1.0, 1.0, 1.0], offsets=[-1, 0, 1], shape=(points, points))
    grid = sparse.csc_array(sparse.kron(line, sparse.eye_array(points)) + sparse.kron(sparse.eye_array(points), line))
    return as_pattern(grid)


def test_fill_in_of_a_grid_is_small():
    """A minimum degree ordering, not the natural one, whose fill-in is the band."""
    points = 20
    assert Structure("sparse", points**2, grid_pattern(points)).symbolic[WORK] < 2.5 * points**3


@SHIFTS
def test_blas_and_loops_agree_on_a_grid(c):
    """Whose last supernodes are wide enough to be divided, and for BLAS."""
    points = 28
    pattern = grid_pattern(points)
    J = pattern.toarray() * np.random.default_rng(2).normal(size=pattern.shape)
    system, answers = System("sparse", pattern, J), []
    symbolic = system.frame[slots.SYMBOLIC]
    first = symbolic[symbolic[FIRST] : symbolic[ROW_STARTS]]
    assert np.diff(first).max() == WIDEST
    for address in (system.frame[slots.ROUTINES][1:].copy(), 0):
        system.frame[slots.ROUTINES][1:] = address
        system.check(8.0 * c)
        answers.append(system.run(SOLVE, c=c, b=np.ones(points**2, dtype=type(c))))
    np.testing.assert_allclose(*answers, rtol=1e-10)


def test_choice():
    """The storage whose factorisation is cheapest, unless one is asked for."""
    line = pattern_of(band(200, 2, 2))
    points = 24
    ring = sparse.csc_array(sparse.diags_array([1.0, 1.0, 1.0], offsets=[-1, 0, 1], shape=(points, points)))
    grid = sparse.kron(ring, sparse.eye_array(points)) + sparse.kron(sparse.eye_array(points), ring)
    assert choose_structure(200, None, "auto").kind == "dense"
    assert choose_structure(200, line, "auto").kind == "banded"
    assert choose_structure(200, line, "sparse").kind == "sparse"
    assert choose_structure(points**2, as_pattern(sparse.csc_array(grid)), "auto").kind == "sparse"
    assert choose_structure(40, pattern_of(random_sparse(40, 0.6)), "auto").kind == "dense"


@pytest.fixture
def routines(monkeypatch):
    """A function that has loops, or LAPACK, chosen for all sizes."""

    def choose(limit):
        monkeypatch.setattr(linear, "_LOOPS", limit)
        make_linear.cache_clear()
        solver.cache_clear()

    yield choose
    make_linear.cache_clear()
    solver.cache_clear()


@pytest.mark.parametrize("kind", ["dense", "banded"])
def test_loops_and_lapack_agree(kind, routines):
    """The same factors, by the routine that the size would not choose."""
    answers = {}
    for limit in (0, 1000):
        routines(limit)
        for n in (12, 40):
            matrix = np.random.default_rng(3).normal(size=(n, n)) if kind == "dense" else band(3 * n, n, n)
            for c in (2.0, 2.0 + 1.0j):
                system = System(kind, pattern_of(matrix), matrix)
                assert system.run(FACTOR, c=c) == 0
                b = np.arange(1.0, 1.0 + len(matrix)).astype(type(c))
                answers[limit, n, c] = [system.run(verb, c=c, b=b) for verb in (SOLVE, SOLVE_TRANSPOSED)]
    for n, c in itertools.product((12, 40), (2.0, 2.0 + 1.0j)):
        for first, second in zip(answers[0, n, c], answers[1000, n, c], strict=True):
            np.testing.assert_allclose(first, second, rtol=1e-9, atol=1e-12 * np.abs(second).max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [3, 40])
def test_singular_and_not_finite(kind, n):
    J = band(n, 35 if n > 35 else 2, 1)
    J[:, 1] = J[1, :] = 0.0
    J[1, 1] = -2.0
    for c in (2.0, 2.0 + 0.0j):
        assert System(kind, pattern_of(J), J).run(FACTOR, c=c) == (1 if kind == "sparse" else 2)  # the step without a pivot
    J[2, 1] = 1.0
    for bad in (np.nan, np.inf):
        J[1, 1] = bad
        for c in (2.0, 2.0 + 1.0j):
            assert System(kind, pattern_of(J), J).run(FACTOR, c=c) != 0


@given(st.integers(1, 12), st.integers(0, 2**32 - 1), st.floats(0.05, 1.0))
@settings(max_examples=40, deadline=None)
def test_any_pattern_in_any_storage(n, seed, density):
    """The storages hold the same matrix, so their solutions agree."""
    rng = np.random.default_rng(seed)
    J = np.where(rng.random((n, n)) < density, rng.normal(size=(n, n)), 0.0)
    for kind in KINDS:
        for c in (1.0, 1.0 - 2.0j):
            if np.linalg.cond(c * np.eye(n) + J) < 1e8:
                System(kind, pattern_of(J), J).check(c)


@pytest.mark.parametrize("c", [1e-9, 1e-9 + 1e-9j])
def test_ill_conditioned(c):
    """Hilbert's matrix: the residual is small although the solution is not exact."""
    n = 12
    J = 1.0 / (np.arange(n)[:, None] + np.arange(n) + 1.0)
    System("dense", None, J).check(c)
