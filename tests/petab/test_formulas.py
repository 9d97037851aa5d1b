"""Formulas of SBML and of PEtab's tables as Python; switches in time; rate laws in loops."""

import ast
import math

import libsbml
import pytest

from adjode.petab import load, writing
from adjode.petab.formulas import evaluate, from_sbml, from_text, guarded, names, simplified, substitute, text
from adjode.petab.switches import Switch, when
from tests import ROOT

SBML = {
    "a * x^2 / (b + x)": "a * x ** 2.0 / (b + x)",
    "log(x)": "math.log10(x)",
    "ln(x)": "math.log(x)",
    "log(2, x)": "math.log(x) / math.log(2.0)",
    "root(3, x)": "x ** (1.0 / 3.0)",
    "sqrt(x)": "math.sqrt(x)",
    "arctan(x)": "math.atan(x)",
    "-x - (-3)": "-x - -3.0",
    "(-x)^2": "(-x) ** 2.0",
    "piecewise(0, time < 3, 1)": "0.0 if time < 3.0 else 1.0",
    "piecewise(a, x > 1, b, x > 0)": "a if x > 1.0 else b if x > 0.0 else math.nan",
    "a > 0 && !(b <= 1)": "a > 0.0 and (not b <= 1.0)",
    "max(x, 0)": "max(x, 0.0)",
    "plus()": "0.0",
    "1e-5 * pi": "1e-05 * 3.141592653589793",
    "lambda1 * t * T": "lambda1 * t_ * T_",
    "f(x + 1)": "2 * (x + 1.0)",
}
PETAB = {
    "a*x^2": "a * x ** 2.0",
    "log(x) + log10(y)": "math.log(x) + math.log10(y_)",
    "lambda * theta": "lambda_ * theta_",
    "piecewise(0, time < 3, 1)": "0.0 if time < 3.0 else 1.0",
    "1.0": "1.0",
    "-2.5e-3*x": "-0.0025 * x",
}


@pytest.mark.parametrize("formula", SBML)
def test_sbml(formula):
    functions = {"f": (["z"], ast.parse("2 * z", mode="eval").body)}
    assert text(from_sbml(libsbml.parseL3Formula(formula), functions)) == SBML[formula]


@pytest.mark.parametrize("formula", PETAB)
def test_petab(formula):
    assert text(from_text(formula)) == PETAB[formula]


@pytest.mark.parametrize("formula", ["foo(x)", "x.y", "a b", "x[0]", "'x'", "(lambda x: x)(1)", "exp(1, 2)"])
def test_what_is_no_formula(formula):
    with pytest.raises(ValueError, match="is not a PEtab (function|formula)"):
        from_text(formula)


@pytest.mark.parametrize("formula", ["delay(x, 1)", "factorial(x)", "rateOf(x)", "g(x)"])
def test_what_sbml_has_and_is_not_supported(formula):
    with pytest.raises(ValueError, match="is not supported|is not defined"):
        from_sbml(libsbml.parseL3Formula(formula), {})


def test_names_values_and_parts():
    formula = from_text("a * exp(-b * a) + max(c, 0)")
    assert sorted(names(formula)) == ["a", "b", "c"]
    assert evaluate(formula, {"a": 2.0, "b": 0.5, "c": -1.0}) == pytest.approx(2.0 * math.exp(-1.0))
    assert text(substitute(formula, {"a": from_text("x + 1")})) == "(x + 1.0) * math.exp(-b * (x + 1.0)) + max(c, 0.0)"
    assert text(simplified(from_text("1 * (a * 0 + b) / 1 - 0"))) == "b"
    assert text(simplified(from_text("x^2 + x^-3 + x^0.5"))) == "x ** 2 + x ** (-3) + x ** 0.5"


def test_a_guarded_formula_has_no_value_where_it_divides_by_zero():
    formula = guarded(from_text("log(x / (x + z)) / k"), lambda part: "x" in names(part))
    assert math.isnan(evaluate(formula, {"x": 0.0, "z": 0.0, "k": 2.0}))
    assert evaluate(formula, {"x": 1.0, "z": 1.0, "k": 2.0}) == pytest.approx(math.log(0.5) / 2.0)


TIMES = {
    "time - 3": (3.0, None, True),
    "2 * (4 + t0_) - time": (18.0, None, False),
    "time - lag": (0.0, "lag", True),
    "-3 * (time - lag - t0_)": (5.0, "lag", False),
}


@pytest.mark.parametrize("difference", TIMES)
def test_when_a_switch_happens(difference):
    found = when(Switch(from_text(difference), "f"), {"t0_": 5.0, "lag": "log_lag"})
    assert (found.time, found.lag, found.rises) == pytest.approx(TIMES[difference])


@pytest.mark.parametrize("difference", ["time^2 - 3", "time - 2 * lag", "time * lag - 1", "time - lag - other"])
def test_switches_that_are_refused(difference):
    with pytest.raises(ValueError, match="f has a condition that is not linear|f switches at a time that"):
        when(Switch(from_text(difference), "f"), {"lag": "lag", "other": "other"})


def test_rate_laws_in_loops_are_the_same_model(monkeypatch):
    plain = load(ROOT / "examples" / "petab" / "receptor.yaml")
    monkeypatch.setattr(writing, "_MANY", 0)
    monkeypatch.setattr("adjode.petab.laws._FEW", 1)
    looped = load(ROOT / "examples" / "petab" / "receptor.yaml")
    assert "for i in range(" in looped.source and "for i in range(" not in plain.source
    value, gradient = looped.evaluate(looped.x0)
    expected, slopes = plain.evaluate(plain.x0)
    assert value == pytest.approx(expected, rel=1e-7) and gradient == pytest.approx(slopes, rel=1e-5)
