"""Plans of moves: nothing is moved twice, nothing comes to lie on another file."""

import os
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from siamese.curation.plans import Move
from siamese.curation.repairs import Planner
from tests.file_names import file_names


def test_free_names():
    planner = Planner({"A": ["x.jpg", "x-2.jpg"], "a": ["X.JPG", "y.jpg", "x"]})
    assert planner.move_into(["a/X.JPG", "a/y.jpg", "a/x"], "A") == [
        Move("a/X.JPG", "A/X-3.JPG"),  # X.JPG is x.jpg on many disks
        Move("a/y.jpg", "A/y.jpg"),
        Move("a/x", "A/x"),
    ]


def test_one_plan_leaves_alone_what_another_one_moves():
    planner = Planner({"": ["A", "B", "C"], "A": ["1", "2"], "B": ["1"], "C": ["1"]})
    assert planner.take_out(["A/1"]) == [Move("A/1", None)]
    assert planner.move_into(["A/1", "A/2"], "B") == [Move("A/2", "B/2")]
    assert planner.take_out(["A", "B", "C"]) == [Move("C", None)]  # the others are in use
    assert planner.take_out(["C/1", "B/1"]) == [Move("B/1", None)]
    assert planner.rename([("B/1", "B/1.png")]) == []


def test_long_names_stay_possible():
    name = "夏" * 84 + ".jpg"  # 256 bytes would be too many
    [move] = Planner({"A": [name]}).move_into([f"a/{name}"], "A")
    assert len(os.fsencode(move.to.removeprefix("A/"))) <= 255
    assert move.to.endswith("-2.jpg")


@given(st.sets(file_names(), max_size=8), st.lists(file_names(), max_size=8, unique=True))
def test_moved_files_meet_no_other(there, coming):
    planner = Planner({"to": there, "from": coming})
    moves = planner.move_into([f"from/{name}" for name in coming], "to")
    assert [move.path for move in moves] == [f"from/{name}" for name in coming]
    ends = [move.to.removeprefix("to/") for move in moves]

    def key(name):
        return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())

    assert len({key(name) for name in ends}) == len(ends)
    assert not {key(name) for name in ends} & {key(name) for name in there}
