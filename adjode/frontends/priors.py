"""Priors of parameters: minus the logarithm of a density, with all constants, and its slope."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from adjode.checks import float_vector, positive


@dataclass(frozen=True)
class Prior:
    """Prior knowledge of a parameter.

    Attributes
    ----------
    scaled : bool
        Whether it is the density of what the optimiser sees, such as the logarithm of a parameter with `scale="log"`, instead of
        the parameter itself.
    """

    def negative_log(self, value: float) -> tuple[float, float]:
        """Minus the logarithm of the density at a value, and its derivative."""
        raise NotImplementedError

    def curvature(self, value: float) -> float:
        """The second derivative of that, 0 where the first one jumps."""
        return 0.0

    scaled: bool = field(default=False, kw_only=True)


@dataclass(frozen=True)
class _Located(Prior):
    """A density around a location.

    Parameters
    ----------
    location : float
    width : float
    scaled : bool
        See `Prior`.

    Raises
    ------
    ValueError, TypeError
        If these are no numbers, or the width is not positive.
    """

    location: float
    width: float

    def __post_init__(self) -> None:
        float_vector("the location of a prior", self.location, 1)
        positive("the width of a prior", self.width)


class Normal(_Located):
    """The normal density, with mean `location` and standard deviation `width`."""

    @property
    def constant(self) -> float:
        """What the density adds to half the square of a residual."""
        return math.log(self.width) + 0.5 * math.log(2.0 * math.pi)

    def negative_log(self, value: float) -> tuple[float, float]:
        r = (value - self.location) / self.width
        return 0.5 * r * r + self.constant, r / self.width

    def curvature(self, value: float) -> float:
        return 1.0 / self.width**2


class Laplace(_Located):
    """The density `exp(-|value - location| / width) / (2 width)`."""

    def negative_log(self, value: float) -> tuple[float, float]:
        r = value - self.location
        return abs(r) / self.width + math.log(2.0 * self.width), math.copysign(1.0 / self.width, r) if r else 0.0


class _OfLogarithm(_Located):
    """The density of a positive value whose logarithm has another."""

    of: ClassVar[type[_Located]]

    def negative_log(self, value: float) -> tuple[float, float]:
        if not value > 0.0:
            return math.inf, math.nan
        density, slope = self.of(self.location, self.width).negative_log(math.log(value))
        return density + math.log(value), (slope + 1.0) / value

    def curvature(self, value: float) -> float:
        of = self.of(self.location, self.width)
        return (of.curvature(math.log(value)) - of.negative_log(math.log(value))[1] - 1.0) / value**2


class LogNormal(_OfLogarithm):
    """The density of a value whose natural logarithm is normal, with this mean and standard deviation."""

    of = Normal


class LogLaplace(_OfLogarithm):
    """The density of a value whose natural logarithm has Laplace's density."""

    of = Laplace


@dataclass(frozen=True)
class Uniform(Prior):
    """The uniform density between two ends: a constant. It is for the bounds of the parameter to keep it there."""

    low: float
    high: float

    def __post_init__(self) -> None:
        float_vector("the lower end of a prior", self.low, 1)
        float_vector("the upper end of a prior", self.high, 1)
        if not self.high > self.low:
            raise ValueError(f"the upper end of a uniform prior must be above {self.low}, but {self.high} was given.")

    def negative_log(self, value: float) -> tuple[float, float]:
        inside = self.low <= value <= self.high
        return (math.log(self.high - self.low), 0.0) if inside else (math.inf, math.nan)
