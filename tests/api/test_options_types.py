"""The keywords in signatures are those that functions take: names, types, and that all may be left out."""

import inspect
import re

import numpy as np
import pytest

from adjode import Fit, solve, solve_ensemble, value_and_gradient
from adjode.api import keywords as options_types
from adjode.api.pullback import pullback
from adjode.api.tangents import pushforward
from adjode.ensembles import engine as backends
from adjode.losses import FinalState
from tests.problems.systems import LV_SPAN, LV_THETA, LV_U0, lotka_volterra


def types_of(keywords):
    assert keywords.__total__ is False and not keywords.__required_keys__
    return {name: kind.__forward_arg__ for name, kind in keywords.__annotations__.items()}


def keywords_of(function):
    """Name -> type of what a function takes by keyword alone, all of which must have a default of that type."""
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY:
            assert parameter.default is not parameter.empty, f"{name} has no default"
            assert parameter.annotation == "Any" or (parameter.default is None) == ("None" in parameter.annotation)
            found[name] = parameter.annotation
    return found


def names_in_message(call):
    """The options that a function says it has, when it is given another."""
    with pytest.raises(TypeError, match="option 'unheard_of' is unknown; the options are ") as caught:
        call(unheard_of=1)
    return set(re.split(", ", str(caught.value).partition("the options are ")[2].rstrip(".")))


def test_those_of_solve():
    assert types_of(options_types.SolveKeywords) == keywords_of(solve)
    forward = types_of(options_types.ForwardKeywords)
    assert forward == {name: kind for name, kind in keywords_of(solve).items() if name != "t_eval"}
    of_ensembles = names_in_message(lambda **options: solve_ensemble(lotka_volterra(), LV_U0, LV_THETA, LV_SPAN, **options))
    assert of_ensembles == set(forward)


def test_those_of_pullback():
    assert types_of(options_types.PullbackKeywords) == keywords_of(pullback)
    assert types_of(options_types.PushforwardKeywords) == keywords_of(pushforward)


def test_those_of_both_passes():
    """As `value_and_gradient` has them; what the two passes both have is that of the pullback with another name."""
    gradient, of_pullback = types_of(options_types.GradientKeywords), keywords_of(pullback)
    taken = names_in_message(lambda **options: value_and_gradient(lotka_volterra(), FinalState([1.0, 2.0]), LV_SPAN, **options))
    assert set(gradient) == taken - {"adjoint"}
    forward = types_of(options_types.ForwardKeywords)
    for name, kind in gradient.items():
        assert kind == (forward[name] if name in forward else of_pullback[name.removeprefix("adjoint_")])
    assert set(types_of(options_types.SweepKeywords)) <= set(gradient) - set(forward)
    assert types_of(options_types.FitKeywords) == gradient | {"adjoint": of_pullback["adjoint"]}
    start = {"u0": LV_U0, "theta": LV_THETA}
    fit = names_in_message(lambda **options: Fit(lotka_volterra(), FinalState(np.ones(2)), LV_SPAN, **start, **options))
    assert fit == set(types_of(options_types.FitKeywords))


def test_those_of_a_fit_of_experiments():
    of_fit = {name: kind for name, kind in keywords_of(Fit.__init__).items() if name in ("workers", "executor")}
    of_fit["executor"] = "Any"  # which says no more
    assert types_of(options_types.ExperimentsKeywords) == types_of(options_types.FitKeywords) | of_fit


def test_those_of_a_device():
    device = types_of(options_types.DeviceKeywords)
    assert tuple(device) == backends._DEVICE_OPTIONS
    forward, sweep = types_of(options_types.ForwardKeywords), types_of(options_types.SweepKeywords)
    assert types_of(options_types.EnsembleSolveKeywords) == forward | device
    assert types_of(options_types.EnsembleGradientKeywords) == forward | sweep | device
