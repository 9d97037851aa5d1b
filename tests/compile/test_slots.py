"""Slots: every one is declared once, holds what it was declared for, and is read as that."""

import numpy as np
import pytest

from adjode.compile import slots
from adjode.compile.entries import entry
from adjode.compile.flags import i8, kernel
from adjode.compile.frame import Frame, address_of, opened
from adjode.compile.slot import Block, Group

BLOCKS = [slot for slot in slots.ALL if isinstance(slot, Block)]


def test_the_slots_of_a_group_stand_together():
    groups = [slot.group for slot in slots.ALL]
    assert groups == sorted(groups) and set(groups) == set(Group)
    assert [slot.index for slot in slots.ALL] == list(range(len(slots.ALL)))
    assert all(getattr(slots, slot.name) is slot for slot in slots.ALL)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_the_places_in_a_block_have_its_names(block):
    assert [getattr(slots, name.upper()) for name in block.entries] == list(block.places)


def test_a_block_is_filled_by_name():
    filled = slots.PLACE.fill(relevant=3, left=1, step=2, column=0)
    assert filled.dtype == np.int64
    assert (filled[slots.STEP], filled[slots.RELEVANT], filled[slots.LEFT]) == (2, 3, 1)
    with pytest.raises(TypeError, match=r"missing \['relevant'\], unknown \['steps'\]"):
        slots.PLACE.fill(step=2, steps=3, left=1, column=0)


@pytest.mark.parametrize(
    ("slot", "wrong"),
    [
        (slots.Y, np.zeros((2, 2))),
        (slots.Y, np.zeros(2, dtype=np.int64)),
        (slots.Y, np.zeros(4)[::2]),
        (slots.Y, 1),
        (slots.F, np.zeros(2)),
        (slots.COUNT, np.zeros(len(slots.COUNT.places) + 1, dtype=np.int64)),
    ],
    ids=["axes", "dtype", "strides", "number", "array", "length"],
)
def test_what_does_not_belong_in_a_slot_is_refused(slot, wrong):
    frame = Frame()
    with pytest.raises(ValueError, match=rf"^slot {slot.name}"):
        frame[slot] = wrong
    assert not frame.has(slot)


@kernel
def _read_all(frame):
    count, A, V, y = slots.COUNT(frame), slots.A(frame), slots.STAGES(frame), slots.Y(slots.PARTNER(frame))
    y[0] = A[1, 0] + V[0, 1, 1] + count[slots.STEPS]
    return 0


def test_a_kernel_reads_each_kind():
    def run_at(address):
        return _read_all(opened(address))

    frame = Frame()
    frame[slots.A], frame[slots.STAGES] = np.array([[0.0, 0.0], [1.0, 0.0]]), np.array([[[0.0, 0.0], [0.0, 20.0]]])
    frame[slots.COUNT] = slots.COUNT.zeros()
    frame[slots.COUNT][slots.STEPS] = 300
    frame.allocate({slots.Y: (1,), slots.K: (2, 1)})
    partner = frame.pair()
    partner[slots.Y] = np.zeros(1)
    assert entry(run_at, (i8,), "read_all", None)(frame.argument) == 0
    assert partner[slots.Y][0] == 321.0 and frame[slots.Y][0] == 0.0


def test_long_arrays_of_a_frame_begin_with_a_cache_line():
    frame, shapes = Frame(), {slots.Y: (65,), slots.K: (0, 3), slots.A: (2, 2), slots.C: (3,), slots.U: (64,)}
    frame.allocate(shapes)
    filled = [slots.Y, slots.A, slots.C, slots.U]
    assert {slot: frame[slot].shape for slot in shapes} == shapes
    for slot in filled:
        frame[slot][:] = slot.index
    assert all((frame[slot] == slot.index).all() for slot in filled)
    assert address_of(frame[slots.Y]) % 64 == address_of(frame[slots.U]) % 64 == 0
    assert address_of(frame[slots.C]) == address_of(frame[slots.A]) + frame[slots.A].nbytes


def test_a_frame_describes_itself():
    frame = Frame()
    frame[slots.THETA], frame[slots.PLACE] = np.zeros(3), slots.PLACE.fill(step=7, relevant=8, left=9, column=0)
    theta, place, step, relevant, left, _ = frame.describe().splitlines()
    assert theta.split(maxsplit=2) == ["THETA", "(3,)", slots.THETA.meaning]
    assert place.split(maxsplit=2) == ["PLACE", "(4,)", slots.PLACE.meaning]
    assert step.split(maxsplit=2) == ["step", "7", slots.PLACE.entries["step"]]
    assert relevant.split()[:2] == ["relevant", "8"] and left.split()[:2] == ["left", "9"]
