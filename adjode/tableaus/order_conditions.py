"""Order conditions of Runge-Kutta methods, by rooted trees (Butcher 2016, Numerical Methods for ODEs, section 31)."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from itertools import combinations_with_replacement, product

import numpy as np

Tree = tuple  # a rooted tree is the sorted tuple of the subtrees at its root; () is the single vertex


@functools.cache
def trees(order: int) -> tuple[Tree, ...]:
    """Every rooted tree with `order` vertices."""
    if order == 1:
        return ((),)
    found: set[Tree] = set()
    for sizes in _partitions(order - 1, order - 1):
        groups = [combinations_with_replacement(trees(size), sizes.count(size)) for size in sorted(set(sizes))]
        for choice in product(*groups):
            found.add(tuple(sorted(subtree for group in choice for subtree in group)))
    return tuple(sorted(found))


def _partitions(total: int, largest: int):
    if total == 0:
        yield ()
    for part in range(min(total, largest), 0, -1):
        for rest in _partitions(total - part, part):
            yield (part, *rest)


@functools.cache
def vertices(tree: Tree) -> int:
    return 1 + sum(vertices(subtree) for subtree in tree)


@functools.cache
def density(tree: Tree) -> int:
    """gamma(tree): the number of vertices times the densities of the subtrees."""
    result = vertices(tree)
    for subtree in tree:
        result *= density(subtree)
    return result


def conditions(A: np.ndarray, order: int, beta: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, int, int]]:
    """Phi_i(tree) of the stages, the number of vertices and the density, for each rooted tree up to `order`.

    For a Rosenbrock method A is alpha, and vertices with one branch take `beta` = alpha + Gamma (Hairer, Wanner, Solving ODEs II,
    section IV.7).
    """
    cache: dict[Tree, np.ndarray] = {}

    def elementary(tree: Tree) -> np.ndarray:
        if tree not in cache:
            value = np.ones(len(A))
            for subtree in tree:
                value = value * ((A if beta is None or len(tree) > 1 else beta) @ elementary(subtree))
            cache[tree] = value
        return cache[tree]

    for size in range(1, order + 1):
        for tree in trees(size):
            yield elementary(tree), size, density(tree)


def order_defect(A: np.ndarray, weights: np.ndarray, order: int, powers: int = 0, beta: np.ndarray | None = None) -> float:
    """The largest violation of the conditions up to `order`; for `beta` see `conditions`.

    Parameters
    ----------
    A : (r, r) stage coefficients
    weights : (r,) or (r, powers)
        `b` of a method; or, with `powers`, the coefficients of `b_i(x) = sum_p weights[i, p] x**(p+1)` of a dense output,
        which must satisfy `sum_i b_i(x) Phi_i(tree) = x**vertices / density` as a polynomial in x.
    """
    worst = 0.0
    for phi, size, gamma in conditions(A, order, beta):
        target = np.zeros(powers) if powers else np.zeros(())
        target[size - 1 if powers else ()] = 1.0 / gamma
        worst = max(worst, float(np.max(np.abs(weights.T @ phi - target))))
    return worst
