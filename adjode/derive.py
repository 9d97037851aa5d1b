"""Print the derivatives of a function that is given as `module:function` or `file.py:function`.

python -m adjode.derive benchmarks.problems:lv_f
"""

from __future__ import annotations

import argparse
import importlib
import runpy
import sys
from typing import Any

from adjode.derivation import derive


def _found(name: str) -> Any:
    module, _, path = name.rpartition(":")
    if not module:
        raise SystemExit(f"give module:function or file.py:function, not {name!r}")
    sys.path.insert(0, "")
    space = runpy.run_path(module) if module.endswith(".py") else vars(importlib.import_module(module))
    first, *rest = path.split(".")
    if first not in space:
        raise SystemExit(f"{module} has no {first}")
    found = space[first]
    for part in rest:
        found = getattr(found, part)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("function", help="module:function or file.py:function")
    try:
        print(derive(_found(parser.parse_args().function)), end="")
    except TypeError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
