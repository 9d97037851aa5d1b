"""Densities of data around what is observed: minus their logarithms, with derivatives, as kernels.

All leave out what depends on the data alone, see `noise.py`. y is what the model says, d the datum, s the scale and q the shape.
"""

from __future__ import annotations

import math

from adjode.compile.flags import kernel

GAUSSIAN, LAPLACE, LOG_NORMAL, LOG_LAPLACE, POISSON, NEGATIVE_BINOMIAL, STUDENT_T, OWN = range(8)

_FAR = 10.0  # where the series below are exact to rounding


@kernel
def log_rising(a, b):
    """`log(gamma(a + b) / gamma(a))` for a > 0, b >= 0, and its derivative by a, to rounding also where the two are large.

    By Stirling's series, behind steps of `gamma(x + 1) = x gamma(x)`: NIST DLMF, 5.5.1, 5.11.1 and 5.11.2.
    """
    value, by_a = 0.0, 0.0
    while a < _FAR:
        value -= math.log1p(b / a)
        by_a += b / (a * (a + b))
        a += 1.0
    grown = math.log1p(b / a)
    (high, high_slope), (low, low_slope) = _stirling(a + b), _stirling(a)
    value += (a - 0.5) * grown + b * (math.log(a + b) - 1.0) + (high - low)
    by_a += grown + 0.5 * b / (a * (a + b)) + (high_slope - low_slope)
    return value, by_a


@kernel
def _stirling(x):
    """The sum in Stirling's series, and its derivative."""
    z = 1.0 / x
    w = z * z
    value = z * (1 / 12 - w * (1 / 360 - w * (1 / 1260 - w * (1 / 1680 - w * (1 / 1188 - w * 691 / 360360)))))
    slope = -w * (1 / 12 - w * (1 / 120 - w * (1 / 252 - w * (1 / 240 - w * (1 / 132 - w * 691 / 32760)))))
    return value, slope


@kernel
def _gaussian(y, d, s):
    r = (y - d) / s
    return 0.5 * r * r + math.log(s), r / s, (1.0 - r * r) / s


@kernel
def _laplace(y, d, s):
    r = (y - d) / s
    sign = 0.0 if r == 0.0 else math.copysign(1.0, r)
    return abs(r) + math.log(s), sign / s, (1.0 - abs(r)) / s


@kernel
def _poisson(y, d):
    if d == 0.0:
        return y, 1.0
    return y - d * math.log(y), 1.0 - d / y


@kernel
def _negative_binomial(y, d, s):
    """With variance y + s y^2."""
    k = 1.0 / s
    rising, by_k = log_rising(k, d)
    value = k * math.log1p(y * s) - rising
    if d == 0.0:
        slope = k / (k + y)
    else:
        value += d * math.log((k + y) / y)
        slope = k * (y - d) / (y * (k + y))
    return value, slope, -k * k * (math.log1p(y * s) - by_k + (d - y) / (k + y))


@kernel
def _student_t(y, d, s, q):
    r = (y - d) / s
    rising, by_half = log_rising(0.5 * q, 0.5)
    far, tail = q + r * r, math.log1p(r * r / q)
    value = math.log(s) + 0.5 * math.log(q) - rising + 0.5 * (q + 1.0) * tail
    by_q = 0.5 * (1.0 / q - by_half + tail - (q + 1.0) * r * r / (q * far))
    return value, (q + 1.0) * r / (s * far), (1.0 - (q + 1.0) * r * r / far) / s, by_q


@kernel
def _allows(density, y, d):
    """Whether a density is defined around y: counts that are zero may be expected to be."""
    if density in (LOG_NORMAL, LOG_LAPLACE):
        return y > 0.0
    if density in (POISSON, NEGATIVE_BINOMIAL):
        return y > 0.0 or (y == 0.0 and d == 0.0)
    return True


@kernel
def negative_log(density, y, d, s, q):
    """Minus the logarithm of a density, and its derivatives by y, s and q; NaN where it is not defined.

    For those of logarithms, d is the logarithm of the datum.
    """
    value, by_y, by_s, by_q = math.nan, 0.0, 0.0, 0.0
    if not s > 0.0 or not _allows(density, y, d):
        return value, by_y, by_s, by_q
    if density == GAUSSIAN:
        value, by_y, by_s = _gaussian(y, d, s)
    elif density == LAPLACE:
        value, by_y, by_s = _laplace(y, d, s)
    elif density == LOG_NORMAL:
        value, by_y, by_s = _gaussian(math.log(y), d, s)
        by_y /= y
    elif density == LOG_LAPLACE:
        value, by_y, by_s = _laplace(math.log(y), d, s)
        by_y /= y
    elif density == POISSON:
        value, by_y = _poisson(y, d)
    elif density == NEGATIVE_BINOMIAL:
        value, by_y, by_s = _negative_binomial(y, d, s)
    elif q > 0.0:
        value, by_y, by_s, by_q = _student_t(y, d, s, q)
    return value, by_y, by_s, by_q
