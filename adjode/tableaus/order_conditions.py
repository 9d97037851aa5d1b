"""Order conditions of Runge-Kutta methods, by rooted trees (Butcher 2016, Numerical Methods for ODEs, section 31)."""

from __future__ import annotations

import functools
from itertools import combinations_with_replacement, product
from math import comb

import numpy as np

_RANK = 1e-8

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


@functools.cache
def _forest(order: int) -> tuple[np.ndarray, ...]:
    """Every tree up to `order`, smallest first: vertices, density, places of what is left without its last branch and of that."""
    forest = [tree for size in range(1, order + 1) for tree in trees(size)]
    place = {tree: k for k, tree in enumerate(forest)}
    columns = [(vertices(tree), density(tree), place[tree[:-1]], place[tree[-1]] if tree else 0) for tree in forest]
    return tuple(np.array(columns).T)


def elementary_weights(A: np.ndarray, order: int, beta: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Phi_i(tree) of the stages in a row for each rooted tree up to `order`, the numbers of vertices, and the densities.

    For a Rosenbrock method A is alpha, and vertices with one branch take `beta` = alpha + Gamma (Hairer, Wanner, Solving ODEs II,
    section IV.7).
    """
    sizes, densities, rest, branch = _forest(order)
    phi, products, slopes = np.ones((3, len(sizes), len(A)))  # products of all branches, and slopes along one, by A
    slopes[0] = A @ phi[0]
    for size in range(2, order + 1):
        of = slice(*np.searchsorted(sizes, (size, size + 1)))
        phi[of] = products[of] = products[rest[of]] * slopes[branch[of]]
        if beta is not None:
            single = np.flatnonzero(rest[of] == 0) + of.start
            phi[single] = phi[branch[single]] @ beta.T
        slopes[of] = [A @ values for values in phi[of]]
    return phi, sizes, densities


def order_defect(
    A: np.ndarray, weights: np.ndarray, order: int, powers: int = 0, beta: np.ndarray | None = None, about: float = 0.0
) -> float:
    """The largest violation of the conditions up to `order`; for `beta` see `elementary_weights`.

    Parameters
    ----------
    A : (r, r) stage coefficients
    weights : (r,) or (r, powers)
        `b` of a method; or, with `powers`, the coefficients of `b_i(x) = x sum_p weights[i, p] (x - about)**p` of a dense output,
        which must satisfy `sum_i b_i(x) Phi_i(tree) = x**vertices / density` as a polynomial in x.
    """
    phi, sizes, densities = elementary_weights(A, order, beta)
    targets = 1.0 / densities
    if powers:
        expanded = [[comb(n, p) * about ** max(n - p, 0) for p in range(powers)] for n in range(order)]  # x**n about `about`
        targets = targets[:, None] * np.array(expanded)[sizes - 1]
    return float(np.max(np.abs(phi @ weights - targets)))


def differentials(A: np.ndarray, seeds: np.ndarray, order: int) -> list[np.ndarray]:
    """For each order up to `order` the weights of the stages in all elementary differentials."""
    phi, sizes, _ = elementary_weights(A, order)
    found: list[np.ndarray] = []
    for size in range(1, order + 1):
        rows = [seed * branches for seed in seeds for branches in phi[sizes == size]]
        for k in range(1, size):  # branches of k vertices at the root, the rest further along the trunk
            rows += [(A.T @ trunk) * branches for trunk in found[size - k - 1] for branches in phi[sizes == k]]
        found.append(np.array(rows))
    return found


def null_space(conditions: np.ndarray) -> np.ndarray:
    """Weights that satisfy the conditions, of those stages that anything depends on."""
    live = np.abs(conditions).max(axis=0) > 0.0
    largest = np.abs(conditions).max(axis=1)
    scaled = (conditions[largest > 0.0] / largest[largest > 0.0, None])[:, live]
    _, values, rows = np.linalg.svd(scaled)
    null = np.zeros((live.sum() - int(np.sum(values > _RANK)), live.size))
    null[:, live] = rows[live.sum() - len(null) :]
    return null
