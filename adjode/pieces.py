"""Pieces of polynomials: those of interpolants as SciPy has them, which of their ends no step should pass, and their weights."""

from __future__ import annotations

import math

import numpy as np

_ROUNDING = 1e-12  # a jump of this part of the values is none
_ROUGH = {"cubic": 1e-3, "akima": 1e-6}  # a jump of this part of what values differ nearby is not smooth, see `_breaks`
_RESOLVED = 16  # knots
_NOTHING = 1e-17  # the weight of a value that is none


def frozen(array: np.ndarray) -> np.ndarray:
    array = np.ascontiguousarray(array)
    array.flags.writeable = False
    return array


def pieces_of(kind: str, times: np.ndarray, values: np.ndarray, outside: str) -> tuple[np.ndarray, np.ndarray]:
    """Where pieces start (p,), and their coefficients (p, order, ...) in rising powers of the distance from there.

    values may be (k,), or a matrix with a column for each of several tables.
    """
    repeats = outside == "periodic"
    if kind == "previous":
        return (times[:-1], values[:-1, None]) if repeats else (times, values[:, None])
    if kind == "linear":
        slopes = (np.diff(values, axis=0).T / np.diff(times)).T
        coefficients = np.stack([values[:-1], slopes], axis=1)
    else:
        from scipy.interpolate import Akima1DInterpolator, CubicSpline  # which takes as long to import as all of this package

        if kind == "cubic" and repeats and np.any(values[0] != values[-1]):
            raise ValueError("kind='cubic' with outside='periodic' needs the same value at both ends.")
        smooth = "periodic" if repeats else "not-a-knot"
        made = CubicSpline(times, values, bc_type=smooth) if kind == "cubic" else Akima1DInterpolator(times, values)
        coefficients = np.swapaxes(made.c[::-1], 0, 1)
    if outside != "hold":
        return times[:-1], coefficients
    ends = np.zeros((2, *coefficients.shape[1:]))
    ends[:, 0] = values[[0, -1]]
    return np.array([times[0] - 1.0, *times]), np.concatenate([ends[:1], coefficients, ends[1:]])


def lengths_of(starts: np.ndarray, end: float) -> np.ndarray:
    """Of the pieces; of the last one where it has no end that of the one before."""
    lengths = np.diff(starts, append=max(end, starts[-1]))
    if lengths[-1] == 0.0:
        lengths[-1] = lengths[-2] if lengths.size > 1 else 1.0
    return lengths


def breaks(kind: str, starts: np.ndarray, pieces: np.ndarray, end: float, values: np.ndarray) -> np.ndarray:
    """The breaks of all columns; `starts` has an end, behind which the first piece comes again, where there is no piece for it."""
    count, order = pieces.shape[:2]
    columns, of_column = pieces.reshape(count, order, -1), values.reshape(len(values), -1)
    if starts.size > count:
        columns = np.concatenate([columns, columns[:1]])
    lengths = lengths_of(starts[:count], end)
    lengths = np.append(lengths, lengths[: starts.size - count])
    found = [_breaks(kind, starts, columns[:, :, j], lengths, of_column[:, j]) for j in range(columns.shape[2])]
    return np.unique(np.concatenate(found))


def _breaks(kind: str, starts: np.ndarray, pieces: np.ndarray, lengths: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The starts of pieces that a step should not pass.

    Where the table or its slope jumps, all jumps but those of rounding are. A spline jumps in its second or third derivative, which
    error control finds, unless it does not look: a step from where nothing happens may pass over a pulse. What is not smooth on the
    scale of the times has stops at them; what is smooth takes many, so that one in `_RESOLVED` is enough.
    """
    jumps, order = np.zeros(starts.size - 1), pieces.shape[1]
    for p in range(order):
        before = sum(math.comb(q, p) * pieces[:-1, q] * lengths[:-1] ** (q - p) for q in range(p, order))
        jumps += np.abs(pieces[1:, p] - before) * lengths[1:] ** p
    kept = jumps > _ROUNDING * np.max(np.abs(values))
    if order > 2 and kept.any():
        kept &= jumps > _ROUGH[kind] * _range_nearby(np.append(pieces[:, 0], values[-1]))[1:-1]  # at each start but the first
        kept[_RESOLVED - 1 :: _RESOLVED] = True
    return starts[1:][kept]


def _range_nearby(values: np.ndarray) -> np.ndarray:
    """How much values differ that are no more than `_RESOLVED` places from each."""
    around = np.lib.stride_tricks.sliding_window_view(np.pad(values, _RESOLVED, mode="edge"), 2 * _RESOLVED + 1)
    return np.ptp(around, axis=1)


def narrow(pieces: np.ndarray, lengths: np.ndarray, around: bool) -> tuple[np.ndarray, np.ndarray, int]:
    """The weights of values in each piece, (pieces * width, order), and the first value (pieces,) that has one.

    A value of a spline has an influence everywhere, but it falls by a factor of four from knot to knot. Where a table begins again,
    the values go `around`: behind the last is the first.
    """
    powers, size = lengths[:, None] ** np.arange(pieces.shape[1]), pieces.shape[2]
    moved = np.arange(len(pieces)) - size // 2 if around else np.zeros(len(pieces), dtype=np.int64)
    order = (moved[:, None] + np.arange(size)) % size
    matters = np.take_along_axis(np.einsum("kp,kpj->kj", powers, np.abs(pieces)) > _NOTHING, order, axis=1)
    first, last = matters.argmax(axis=1), size - matters[:, ::-1].argmax(axis=1)
    width = int(np.max(last - first))
    first = np.minimum(first, size - width)
    weights = np.stack([pieces[k, :, order[k, j : j + width]] for k, j in enumerate(first)])
    return frozen(weights.reshape(-1, pieces.shape[1])), frozen((first + moved) % size), width
