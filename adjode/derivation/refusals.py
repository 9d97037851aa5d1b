"""What cannot be differentiated, told with the user's line."""

from __future__ import annotations


class Refusal(Exception):
    """Raised wherever something is found that has no derivative here; who knows the line makes a TypeError of it.

    Parameters
    ----------
    what : str
        The construct, as in "`f` is a generator".
    instead : str
        What to write instead.
    """

    def __init__(self, what: str, instead: str):
        super().__init__(what)
        self.what, self.instead = what, instead


class Refused(TypeError):
    """The same with the user's line, as users see it."""
