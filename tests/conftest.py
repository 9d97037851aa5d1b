"""What all tests share: tests marked as jitted are skipped where nothing is compiled."""

import numpy as np
import pytest
from numba.core import config

from adjode.compile import slots
from adjode.passes.discrete import Discrete


def pytest_collection_modifyitems(items):
    if config.DISABLE_JIT:
        for item in items:
            if item.get_closest_marker("jitted"):
                item.add_marker(pytest.mark.skip(reason="needs compiled code, or its speed"))


@pytest.fixture
def fixed_mesh(monkeypatch):
    """The adjoint has the rule of the differential equation at jumps, as tangents have, not that of steps that move with them."""

    def put_none(made):
        made.frame[slots.JUMP_TOTAL] = np.zeros(made.frame[slots.TOTAL].size)

    monkeypatch.setattr(Discrete, "_put_shifts", put_none)
