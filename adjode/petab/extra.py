"""The packages of the extra `petab`, imported where they are used."""

from __future__ import annotations

import importlib
from typing import Any

_PACKAGES = {"libsbml": "python-libsbml", "yaml": "pyyaml"}


def require(module: str) -> Any:
    """The module, or an ImportError that says what to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"adjode.petab needs {_PACKAGES[module]}: pip install 'adjode[petab]'.") from error
