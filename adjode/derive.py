"""Print the derivatives of a function that is given as `module:function` or `file.py:function`: by default vjp and vjp_u.

python -m adjode.derive benchmarks.problems:lv_f --what jvp
"""

from __future__ import annotations

import argparse
import importlib
import runpy
import sys
from typing import Any

from adjode.derivation import derive

WHAT = "vjp", "vjp_u", "jvp", "jac", "df_dt", "vjp_dot"


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
    parser.add_argument("--what", choices=WHAT, help="one of these alone")
    given = parser.parse_args()
    try:
        derived = derive(_found(given.function))
        text = str(derived) if given.what is None else getattr(derived, f"{given.what}_source")
    except TypeError as error:
        raise SystemExit(str(error)) from None
    if text is None:
        raise SystemExit(f"{given.function} has no {given.what} of its own: it has loops or many entries. Use vjp or jvp.")
    print(text, end="")


if __name__ == "__main__":
    main()
