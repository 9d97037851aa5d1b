"""Run in an environment that a wheel was installed into: the package is whole, imports little, and differentiates."""

import sys
from importlib import metadata, resources
from pathlib import Path

import adjode


def decay(t, u, theta, du):
    du[0] = -theta[0] * u[0]


def main():
    assert Path(adjode.__file__).is_relative_to(sys.prefix), f"{adjode.__file__} is not the package that was installed"
    assert not {"pandas", "matplotlib", "scipy.optimize"} & sys.modules.keys(), "importing adjode imports more than it needs"
    assert resources.files(adjode).joinpath("py.typed").is_file(), "the types are missing"
    assert metadata.version("adjode") == adjode.__version__
    value, bar = adjode.value_and_gradient(adjode.Dynamics(decay), adjode.losses.FinalState([1.0]), (0.0, 1.0))([1.0], [2.0])
    assert abs(bar.theta[0] + value) < 1e-5, (value, bar.theta)
    print(f"adjode {adjode.__version__} works where it was installed")


if __name__ == "__main__":
    main()
