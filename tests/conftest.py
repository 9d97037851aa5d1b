"""What all tests share: tests marked as jitted are skipped where nothing is compiled."""

import pytest
from numba.core import config


def pytest_collection_modifyitems(items):
    if config.DISABLE_JIT:
        for item in items:
            if item.get_closest_marker("jitted"):
                item.add_marker(pytest.mark.skip(reason="needs compiled code, or its speed"))
