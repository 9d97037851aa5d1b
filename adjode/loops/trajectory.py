"""Stored dense output: where a time lies in the mesh, and the values there."""

from __future__ import annotations

import functools
from collections.abc import Callable

from adjode.jit import cube, entry, i8, invoke, kernel, matrix, plane, row, vector
from adjode.steppers.explicit import interpolate


@kernel
def locate(mesh_t, steps, guess, t):
    """The step that contains t: `guess`, a neighbour of it, or found by bisection. The mesh may run either way."""
    sign = 1.0 if mesh_t[steps] >= mesh_t[0] else -1.0
    low, high = max(0, guess - 1), min(steps, guess + 2)
    if sign * t < sign * mesh_t[low] or sign * t > sign * mesh_t[high]:
        low, high = 0, steps
    elif sign * mesh_t[guess] <= sign * t and sign * t <= sign * mesh_t[guess + 1]:
        return guess
    while high - low > 1:
        middle = (low + high) // 2
        if sign * t < sign * mesh_t[middle]:
            high = middle
        else:
            low = middle
    return low


@kernel
def state_at(mesh_t, mesh_u, mesh_c, k, t, out):
    """The state at time t, which lies in step k; exactly the stored state at the step's end."""
    start, end = mesh_t[k], mesh_t[k + 1]
    if t == end:
        for i in range(out.size):
            out[i] = mesh_u[k + 1, i]
        return
    interpolate(out, row(mesh_u, k), plane(mesh_c, k), (t - start) / (end - start))


def _evaluate(mesh_t, mesh_u, mesh_c, steps, times, out):
    k = 0
    for j in range(times.size):
        if steps == 0:
            for i in range(out.shape[1]):
                out[j, i] = mesh_u[0, i]
        else:
            k = locate(mesh_t, steps, k, times[j])
            state_at(mesh_t, mesh_u, mesh_c, k, times[j], row(out, j))


@functools.cache
def _evaluate_entry() -> Callable:
    return entry(_evaluate, (vector, matrix, cube, i8, vector, matrix), "evaluate")


def evaluate(mesh_t, mesh_u, mesh_c, steps, times, out) -> None:
    """Fill `out` (k, n) with the states at `times` (k,), which lie inside the mesh, in any order."""
    _evaluate_entry()(mesh_t, mesh_u, mesh_c, steps, times, out)


def _slopes(f, theta, times, states, out):
    for j in range(times.size):
        status = invoke(f, times[j], (row(states, j), theta, row(out, j)))
        if status != 0:
            return j
    return -1


@functools.cache
def _slopes_entry() -> Callable:
    return entry(_slopes, (i8, vector, vector, matrix, matrix), "slopes")


ENTRIES = (_evaluate_entry, _slopes_entry)


def slopes(f, theta, times, states, out) -> int:
    """Fill `out` (k, n) with f at `times` (k,) and `states` (k, n); the row at which f raised, or -1."""
    return _slopes_entry()(f, theta, times, states, out)
