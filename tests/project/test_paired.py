"""The comparison of times between two versions of the code; of the times themselves nothing is asserted."""

import math

from benchmarks import paired
from benchmarks.checkout import ROOT
from benchmarks.paired import Call, Measurement, Side, Start, compare
from benchmarks.peers.adjode_calls import contenders
from benchmarks.peers.process import WorkerError


def test_rows_can_be_measured():
    rows, known = paired.rows(), {one.name: one for one in contenders()}
    for row in rows.values():
        assert isinstance(row, Start) or row.case in known[row.contender].cases
    assert {name.partition("/")[0] for name in rows} == {"gradient", "call", "ensemble", "import", "first gradient"}


def test_a_median_and_what_is_known_of_it():
    old = [1.0 + 0.01 * k for k in range(10)]
    slower = Measurement("slower", old, [1.1 * time for time in old])
    assert slower.mark == "slower" and all(math.isclose(end, 1.1) for end in slower.interval)
    ratios = [0.9, 0.95, 1.0, 1.02, 1.05, 1.06, 1.07, 1.08, 1.2, 1.3]
    unsure = Measurement("unsure", [2.0] * 10, [2.0 * ratio for ratio in ratios])
    assert unsure.mark == "slower?" and unsure.interval == (0.95, 1.2)  # ranks 2 and 9 of ten
    assert unsure.cells()[1:4] == ("2 s", "2.11 s", "1.055")
    assert Measurement("few", old[:5], [1.1 * time for time in old[:5]]).mark == "slower?"
    assert Measurement("same", old, [1.02 * time for time in old]).mark == ""
    assert [paired.duration(time) for time in (12.0, 0.5, 2e-6)] == ["12 s", "500 ms", "2 µs"]


class Fake:
    """A side whose rows take as long as they are told to; it writes down what is done with it."""

    def __init__(self, checkout, seconds, log):
        self.checkout, self.seconds, self.log = checkout, seconds, log

    def prepare(self, row):
        if row.case == "broken" and self.checkout == "old":
            raise WorkerError("no such case")
        self.log.append(("prepare", self.checkout, row.case))

    def restart(self):
        self.log.append(("restart", self.checkout))

    def measure(self, row):
        self.log.append(("measure", self.checkout, row.case))
        return self.seconds


def test_sides_are_measured_in_turns(capsys):
    log, rows = [], {"a": Call("", "a", 0.1), "b": Call("", "b", 0.1, every=2), "c": Call("", "broken", 0.1)}
    found = compare((Fake("old", 1.0, log), Fake("new", 1.2, log)), rows, 4)
    assert [(one.name, one.old, one.new) for one in found] == [("a", [1.0] * 4, [1.2] * 4), ("b", [1.0] * 2, [1.2] * 2)]
    assert "old: no such case" in capsys.readouterr().err
    first = [entry[1] for entry in log if entry[0] == "measure" and entry[2] == "a"][::2]
    assert first == ["new", "old", "new", "old"]  # who goes first changes
    measured = iter([entry for entry in log if entry[0] == "measure"])
    assert all(one[2] == other[2] and one[1] != other[1] for one, other in zip(measured, measured, strict=True))
    assert sum(entry[0] == "restart" for entry in log) == 2 * (4 // paired.LIFE - 1)
    assert log.count(("prepare", "new", "b")) == 4 // paired.LIFE


def test_a_worker_and_a_fresh_process():
    with Side(ROOT, "cpu") as side:
        row = paired.rows()["call/portable"]
        side.prepare(row)
        for side.clock in ("cpu", "wall"):
            assert side.measure(row) > 0.0
        assert side.measure(Start("import numpy", empty=True)) > 0.0
