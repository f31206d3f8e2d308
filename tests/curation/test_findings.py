"""Twin folders: one name written in several ways, and nothing else."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siamese.curation.findings import find_twins, name_key, spelled

SPELLINGS = [
    ("が", "か\u3099"),
    ("Chloé", "Chloe\u0301"),
    ("夏子", "夏子 "),
    ("夏子", "\u3000夏子"),
    ("横澤 夏子", "横澤夏子"),
    ("Bob Lee", "Bob\u00a0Lee"),
    ("Bob", "Bo\u200bb"),
    ("Ann", "ann"),
    ("STRASSE", "straße"),
    ("ΣΊΣΥΦΟΣ", "σίσυφος"),
    ("Chloé", "chloe\u0301 "),
]


@pytest.mark.parametrize(("first", "second"), SPELLINGS)
def test_one_name_in_two_spellings(first, second):
    [twins] = find_twins([first, "somebody else", second])
    assert set(twins.names) == {first, second}
    assert twins.sure


@pytest.mark.parametrize(("first", "second"), [("Ann", "Ａｎｎ"), ("ｶﾞ", "ガ"), ("ﬁn", "fin")])
def test_look_alikes_are_unsure(first, second):
    [twins] = find_twins([first, second])
    assert not twins.sure or first == "ﬁn"  # casefold itself takes ligatures apart


@pytest.mark.parametrize(
    ("first", "second"),
    [("か", "が"), ("Ann", "Anna"), ("夏子", "横澤夏子"), ("person_1", "person_10"), ("e", "é"),
     ("Ann\udcff", "Ann\udcfe"), ("ハ", "バ"), ("Ann-Lee", "Ann_Lee")],
)  # fmt: skip
def test_two_names_stay_two(first, second):
    assert find_twins([first, second]) == []


NAMES = st.text(min_size=1, max_size=12)


@given(NAMES, st.data())
def test_every_respelling_has_the_same_key(name, data):
    form = data.draw(st.sampled_from(["NFC", "NFD"]))
    other = unicodedata.normalize(form, name)
    other = data.draw(st.sampled_from([other, other.casefold()]))
    at = data.draw(st.integers(0, len(other)))
    if at in (0, len(other)):
        other = other[:at] + data.draw(st.sampled_from(["", " ", "\u3000", "\u200b"])) + other[at:]
    assert name_key(other) == name_key(name)


@given(st.lists(NAMES, max_size=12, unique=True))
def test_twins_share_a_key_and_all_who_share_one_are_told(names):
    found = find_twins(names)
    for twins in found:
        assert len(twins.names) > 1
        if twins.sure:
            assert len({name_key(name) for name in twins.names}) == 1
    told = {frozenset(twins.names) for twins in found}
    for first in names:
        for second in names:
            if first < second and name_key(first) == name_key(second):
                assert any({first, second} <= group for group in told)


def test_spellings_can_be_told_apart():
    assert spelled("夏子 ") == "夏子␣"
    assert spelled("か\u3099") == "か<U+3099>"
    assert spelled("\u3000a\u200b") == "<U+3000>a<U+200B>"


@given(NAMES, NAMES)
def test_two_spellings_never_look_the_same(first, second):
    if "␣" not in first + second and "<" not in first + second:
        assert (spelled(first) == spelled(second)) == (first == second)
