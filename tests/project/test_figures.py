"""The figures of the readme and of the documentation can be drawn anew."""

import runpy

import pytest

from tests import ROOT

DRAWN = {
    "draw_readme": {"readme.svg", "measured/ratios.svg"},
    "draw_tutorial": {"tutorial.svg"},
    "draw_adjoint": {"sweep.svg", "ways_back.svg"},
    "draw_methods": {"step.svg", "stability.svg", "auto.svg", "measured/error_time.svg"},
    "draw_diagrams": {"square.svg", "tiers.svg", "decision.svg"},
    "draw_bounce": {"measured/bounce.svg"},
}


@pytest.mark.slow
@pytest.mark.jitted
@pytest.mark.parametrize("script", DRAWN)
def test_figures_are_drawn(script, tmp_path, monkeypatch):
    drawing = pytest.importorskip("docs.drawing", exc_type=ImportError)
    (tmp_path / "measured").mkdir()
    monkeypatch.setattr(drawing, "FOLDER", tmp_path)
    runpy.run_module(f"docs.{script}", run_name="__main__")
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.svg")}
    assert found == DRAWN[script]
    for name in found:
        kept = (ROOT / "docs" / name).read_text()
        assert (tmp_path / name).read_text().count("<g id=") == kept.count("<g id=")  # the same parts, whatever their last digits


def test_each_figure_of_a_page_is_drawn_or_measured():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    figures = {path.name for path in (ROOT / "docs").rglob("*.svg") if "_build" not in path.parts}
    assert {name for name in figures if any(name in page.read_text() for page in pages)} == figures
