"""The implicit methods and the adjoints that they have, for tests that take each of them in turn."""

from adjode.steppers.family import family_of
from adjode.tableaus import METHODS, tableau

STIFF = [name for name in METHODS if tableau(name).implicit and name != "auto"]  # which has tests of its own
TRANSPOSED = [name for name in STIFF if family_of(tableau(name)).transposable]
COMBINATIONS = [(m, a) for m in STIFF for a in ("discrete", "interpolating") if a != "discrete" or m in TRANSPOSED]
TIGHT = {"rtol": 1e-13, "atol": 1e-13}  # with fixed steps: how far Newton goes
AUTO_ADJOINTS = ("discrete", "interpolating")
