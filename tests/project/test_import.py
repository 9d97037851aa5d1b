"""What `import adjode` brings with it, and what the names that it has."""

import subprocess
import sys

import pytest

import adjode

UNWANTED = (
    "scipy.optimize",
    "scipy.sparse",
    "scipy.linalg",
    "scipy.special",
    "tqdm",
    "matplotlib",
    "numpy.lib.recfunctions",
    "numba_cuda",
)
UNWANTED += ("adjode.frontends", "adjode.ensembles", "adjode.plots")


def _brought(script: str) -> list[str]:
    script = f"import sys; before = set(sys.modules); {script}; print(*(set(sys.modules) - before))"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()


def test_import_alone_loads_nothing():
    brought = _brought("import adjode")
    assert [name for name in brought if name.startswith("adjode")] == ["adjode"]
    assert "numba" not in brought and "numpy" not in brought


def test_a_gradient_takes_nothing_that_only_some_calls_need():
    brought = _brought("import adjode; adjode.value_and_gradient")
    assert "adjode.api.gradient" in brought
    assert [name for name in brought if name.startswith(UNWANTED)] == []


def test_a_module_inside_of_a_room_needs_no_other_name_before():
    assert "adjode.frontends.priors" in _brought("import adjode; adjode.priors")


@pytest.mark.parametrize("name", adjode.__all__)
def test_public_names_are_there(name):
    assert getattr(adjode, name).__doc__
    assert name in dir(adjode)


def test_other_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'Fitt'"):
        adjode.Fitt  # noqa: B018
