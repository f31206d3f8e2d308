"""What a terminal and a table get to see."""

import pytest

from siamese.files.shown import shown, shown_lines, table_cell


@pytest.mark.parametrize(
    "name", ["Ann", "夏子", "Bob Lee", "Chloé", "भारत", "👩", "山田\u3000太郎", "علی\u200cرضا"]
)
def test_letters_stay(name: str) -> None:
    assert shown(name) == name


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ("a\x1b]0;title\x07", "a\\x1b]0;title\\x07"),
        ("a\u202egpj.exe", "a\\u202egpj.exe"),
        ("a\nb\rc", "a\\nb\\rc"),
        ("a\x9bm", "a\\x9bm"),
        ("a\udcff", "a\\udcff"),
        ("a\u200bb", "a\\u200bb"),
    ],
)
def test_what_steers_a_terminal_is_spelled_out(raw: str, told: str) -> None:
    assert shown(raw) == told


def test_lines_stay_lines() -> None:
    assert shown_lines("a\n\tb\x1b[1m\n") == "a\n\tb\\x1b[1m\n"


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@x", "\tx", "\rx"])
def test_formulas_are_quoted(cell: str) -> None:
    assert table_cell(cell) == f"'{cell}"


def test_names_are_not_quoted() -> None:
    assert [table_cell(name) for name in ("Ann", "夏子", "", "a=b")] == ["Ann", "夏子", "", "a=b"]
