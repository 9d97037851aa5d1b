"""What users give an ensemble: arrays with a row for each trajectory, or one for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from adjode.backends.cuda.arrays import is_device_array, to_host
from adjode.checks import require_finite, require_unmasked, time_span
from adjode.model.doses import Doses, read_doses
from adjode.model.dynamics import Dynamics
from adjode.model.events import read_events
from adjode.model.fields import Fields
from adjode.model.layout import Layout, named


@dataclass(frozen=True, eq=False)
class Rows:
    """A block of inputs.

    Attributes
    ----------
    flat : (N, k) array, or (1, k) where all trajectories share it
    shared : bool
    layout : Layout
        Of one row.
    """

    flat: Any
    shared: bool
    layout: Layout

    @property
    def count(self) -> int | None:
        """N; None for what is shared."""
        return None if self.shared else self.flat.shape[0]

    def of(self, i: int) -> Any:
        """The row of trajectory i, in the form that it was given in."""
        at = 0 if self.shared else i
        return self.layout.unflatten(to_host(self.flat[at : at + 1])[0].astype(float))

    def unflatten(self, flat: Any) -> Any:
        return flat if flat is None or is_device_array(flat) else self.layout.unflatten(flat)


def read_rows(name: str, value: Any, letter: str, declared: Fields | None = None, *, on_device: bool = False) -> Rows:
    """A block of shape (letter,), which all trajectories share, or (N, letter); or a structured array of shape () or (N,).

    Where names are declared, which tell entries from trajectories, also a dict of all of them, or a pandas DataFrame. What is
    shared must be finite; a trajectory whose own row is not finite fails by itself. `on_device` says whether it may lie on a GPU,
    where it then stays.
    """
    if declared is not None:
        value = _columns(named(name, value))
    if isinstance(value, Mapping):
        if declared is None:
            raise TypeError(
                f"{name} must be an array of shape ({letter},) or (N, {letter}), but a {type(value).__name__} was given, whose "
                "entries cannot be distinguished from trajectories: for named entries give a NumPy structured array of shape () "
                "or (N,), or declare them by Dynamics(..., states=..., parameters=...)."
            )
        return _named_rows(name, value, declared)
    if is_device_array(value):
        if not on_device:
            raise TypeError(f"{name} lies on a GPU: use backend='cuda' without an executor, or copy it to the host first.")
        return _rows_on_device(name, value, letter, declared)
    require_unmasked(name, value)
    array = np.asarray(value)
    layout = None
    if array.dtype.names:
        if array.ndim > 1:
            raise ValueError(f"{name} must have the shape () or (N,) if it is structured, but its shape is {array.shape}.")
        layout = Layout(name, array[()] if array.ndim == 0 else np.zeros(1, array.dtype)[0], declared)
        flat = layout.flatten_rows(name, array, array.shape)
    elif array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, but its dtype is {array.dtype}.")
    elif array.ndim not in (1, 2):
        raise ValueError(f"{name} must have the shape ({letter},) or (N, {letter}), but its shape is {array.shape}.")
    else:
        flat = array
    return _rows(name, flat, layout or Layout(name, np.zeros(flat.shape[-1]), declared))


def read_blocks(dynamics: Dynamics, u0: Any, theta: Any, *, on_device: bool) -> tuple[Rows, Rows]:
    """u0 and theta, laid out as the dynamics declare."""
    return (
        read_rows("u0", u0, "n", dynamics.states, on_device=on_device),
        read_rows("theta", theta, "m", dynamics.parameters, on_device=on_device),
    )


def _rows(name: str, flat: np.ndarray, layout: Layout) -> Rows:
    shared = flat.ndim == 1
    if shared:
        require_finite(name, flat)
    return Rows(np.ascontiguousarray(np.atleast_2d(flat), dtype=np.float64), shared, layout)


def _columns(value: Any) -> Any:
    """A pandas DataFrame whose columns have names as a dict of them, everything else as it is."""
    columns = getattr(value, "columns", None)
    if hasattr(value, "to_dict") and columns is not None and all(isinstance(label, str) for label in columns):
        return {label: np.asarray(value[label]) for label in columns}
    return value


def _named_rows(name: str, value: Mapping, declared: Fields) -> Rows:
    """Of arrays of the shapes that were declared or, all of them, with an axis more for the trajectories."""
    shapes = dict(declared.shapes)
    layout = Layout(name, {key: np.zeros(shapes.get(key, ())) for key in value}, declared)
    rows = {np.shape(part)[: max(np.ndim(part) - len(shapes[key]), 0)] for key, part in value.items()}
    if len(rows) > 1 or any(len(row) > 1 for row in rows):
        found = ", ".join(f"{key!r} the shape {np.shape(part)}" for key, part in value.items())
        raise ValueError(
            f"{name} must have entries of the declared shapes, or all of them with the same leading axis for the trajectories, but "
            f"it has {found}."
        )
    return _rows(name, layout.flatten_rows(name, value, rows.pop() if rows else ()), layout)


def _rows_on_device(name: str, value: Any, letter: str, declared: Fields | None) -> Rows:
    from adjode.backends.cuda.device import adopted

    array = adopted(value)
    if len(array.shape) not in (1, 2) or array.dtype not in (np.float64, np.float32):
        raise ValueError(
            f"{name} on a GPU must have the shape ({letter},) or (N, {letter}) and the dtype float64 or float32, but its shape is "
            f"{tuple(array.shape)} and its dtype {array.dtype}."
        )
    shared = len(array.shape) == 1
    flat = array.reshape(1, array.shape[0]) if shared else array
    return Rows(flat, shared, Layout(name, np.zeros(flat.shape[1]), declared))


def read_spans(t_span: Any) -> np.ndarray:
    """Spans as (1, 2) or (N, 2); all must run the same way."""
    require_unmasked("t_span", t_span)
    if np.ndim(t_span) != 2:
        spans = np.array([time_span(t_span)])
    else:
        spans = np.array(t_span, dtype=np.float64, order="C")
        if spans.shape[1] != 2:
            raise ValueError(f"t_span must be a pair (t0, T) or have the shape (N, 2), but its shape is {spans.shape}.")
        require_finite("t_span", spans)
    lengths = spans[:, 1] - spans[:, 0]
    if not lengths.all():
        raise ValueError("t_span must have a length: t0 and T are equal" + _where(lengths == 0.0) + ".")
    if len(lengths) and not (np.sign(lengths) == np.sign(lengths[0])).all():
        raise ValueError(
            f"all spans of an ensemble must run the same way in time, but trajectory {int(np.argmax(lengths * lengths[0] < 0.0))} "
            f"runs against the first: make two ensembles."
        )
    return spans


def _where(found: np.ndarray) -> str:
    return f" in trajectory {int(found.argmax())}" if len(found) > 1 else ""


def require_times_inside(name: str, times: np.ndarray, spans: np.ndarray) -> None:
    """Raise a ValueError if one of the times lies outside one of the spans."""
    if not len(spans) or not times.size:
        return
    for time in (times.min(), times.max()):
        outside = (time < spans.min(axis=1)) | (time > spans.max(axis=1))
        if outside.any():
            low, high = sorted(spans[outside.argmax()])
            raise ValueError(f"{name} must lie in the span [{low}, {high}]{_where(outside)}, but {time} was given.")


def doses_of_members(given: Any, spans: np.ndarray) -> tuple[Doses, ...]:
    """Doses for spans that differ, of which each is to have its own; a ValueError for one that is outside of a span."""
    doses = read_doses(given)
    if len(spans) < 2:
        return doses
    first, last = spans.min(axis=1), spans.max(axis=1)
    for one in doses:
        if one.repeats_to_the_end and spans[0, 1] < spans[0, 0] and np.ptp(last) > 0.0:
            raise ValueError("doses that repeat to the ends of different spans cannot run backwards in time: give until=.")
        for time in () if one.steady_state else one.known_times(float(last.max())):
            outside = (time < first) | ((time > last) & (not one.repeats_to_the_end))
            if outside.any():
                i = int(outside.argmax())
                raise ValueError(
                    f"a dose at {time:g} is outside the span from {first[i]:g} to {last[i]:g} of trajectory {i}: leave it out, "
                    f"change the span, or make its time an entry of theta."
                )
    return tuple(one.up_to(float(last.max())) for one in doses)


def with_stops_of_members(dynamics: Dynamics, options: dict[str, Any], spans: np.ndarray) -> dict[str, Any]:
    """Options with the times in all spans at which f or guards switch periodically; a ValueError if it needs equal lengths."""
    if len(spans) < 2 or not (spans != spans[0]).any():
        return options
    if any(one.period for one in dynamics.switches.moving) and np.ptp(spans[:, 1] - spans[:, 0]) > 0.0:
        dynamics.switches.refuse("an ensemble with such times again and again has spans of one length: give these")
    of_guards = [one.switches.stops(spans) for one in read_events(options.get("events"))]
    stops = np.concatenate([dynamics.switches.stops(spans), *of_guards])
    return {**options, "stops": np.union1d(options.get("stops", ()), stops)} if stops.size else options


def count_members(**lengths: int | None) -> int:
    """N, on which all that have a row for each trajectory must agree; the others are None."""
    given = {name: length for name, length in lengths.items() if length is not None}
    if not given:
        raise ValueError(
            "an ensemble needs a row for each trajectory in u0 (N, n), theta (N, m), t_span (N, 2) or the data of the loss, but "
            "none has one: for one trajectory use solve or value_and_gradient."
        )
    if len(set(given.values())) > 1:
        raise ValueError(f"the numbers of trajectories differ: {', '.join(f'{k} has {v}' for k, v in given.items())}.")
    return next(iter(given.values()))
