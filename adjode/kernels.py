"""`adjode.functions` under its first name."""

from adjode.functions import *  # noqa: F403
from adjode.functions import __all__ as __all__
