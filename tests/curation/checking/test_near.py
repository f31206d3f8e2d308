"""Near fingerprints: the same pairs and groups as comparing all with all."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siamese.curation.checking import near as near_module
from siamese.curation.checking.near import FINE_LIMIT, SEVERAL, near_groups, near_pairs, ones


@st.composite
def clustered_words(draw):
    """Words around a few centres, so that all distances occur; some are equal."""
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2**64, draw(st.integers(1, 4)), np.uint64)
    words = centres[rng.integers(0, len(centres), draw(st.integers(0, 60)))]
    for _ in range(draw(st.integers(0, 12))):
        words = words ^ (np.uint64(1) << rng.integers(0, 64, len(words)).astype(np.uint64))
    return words


def naive_pairs(words, near):
    return {
        (a, b): (int(words[a]) ^ int(words[b])).bit_count()
        for a in range(len(words))
        for b in range(a + 1, len(words))
        if (int(words[a]) ^ int(words[b])).bit_count() <= near
    }


@settings(deadline=None, max_examples=60)
@given(clustered_words(), st.integers(0, 16))
def test_pairs_are_those_of_comparing_all_with_all(words, near):
    with pytest.MonkeyPatch.context() as patch:
        if near < 9:  # in bands, which for more are slow where words are few
            patch.setattr(near_module, "_FEW", 0)
            patch.setattr(near_module, "_DEARER", 0)
        found = [
            (int(a), int(b), int(d))
            for first, second, distance in near_pairs(words, near)
            for a, b, d in zip(first, second, distance, strict=True)
        ]
    assert len(found) == len({(a, b) for a, b, _ in found}), "a pair was told twice"
    assert {(a, b): d for a, b, d in found} == naive_pairs(words, near)


@pytest.mark.parametrize("near", [6, 9])
def test_pairs_of_many_words(near, monkeypatch):
    monkeypatch.setattr(near_module, "_BLOCK", 1000)
    monkeypatch.setattr(near_module, "_DEARER", 0)  # both in bands
    rng = np.random.default_rng(0)
    words = rng.integers(0, 2**64, 4000, np.uint64)
    words[2000:] = words[:2000] ^ (np.uint64(1) << rng.integers(0, 64, 2000).astype(np.uint64))
    found = {
        (int(a), int(b)) for first, second, _ in near_pairs(words, near)
        for a, b in zip(first, second, strict=True)
    }  # fmt: skip
    block = np.bitwise_count(words[:, None] ^ words) if hasattr(np, "bitwise_count") else None
    if block is not None:
        expected = np.argwhere(np.triu(block <= near, 1))
        assert found == set(map(tuple, expected.tolist()))
    assert len(found) >= 2000


def naive_groups(prints, near, owners):
    """Connected components by repeated merging; the closest distance of each."""
    count = len(prints)
    group, closest = list(range(count)), {}
    edges = []
    for a in range(count):
        for b in range(a + 1, count):
            bits = [
                (int(x) ^ int(y)).bit_count() for x, y in zip(prints[a], prints[b], strict=True)
            ]
            other = owners[a] != owners[b] or owners[a] == SEVERAL
            if bits[0] <= near and sum(bits[1:]) <= FINE_LIMIT and other:
                edges.append((a, b, bits[0]))
                old, new = group[b], group[a]
                group = [new if one == old else one for one in group]
    for a, _, bits in edges:
        closest[group[a]] = min(bits, closest.get(group[a], 64))
    members = {}
    for at, one in enumerate(group):
        members.setdefault(one, []).append(at)
    return {(tuple(who), closest[one]) for one, who in members.items() if len(who) > 1}


@settings(deadline=None)
@given(clustered_words(), st.integers(0, 10), st.integers(0, 2**32 - 1))
def test_groups_are_those_of_the_naive_graph(words, near, seed):
    rng = np.random.default_rng(seed)
    fine = rng.integers(0, 2**64, (3, 4), np.uint64)[rng.integers(0, 3, len(words))]
    fine[:, 0] ^= rng.integers(0, 4, len(words)).astype(np.uint64)
    prints = np.column_stack([words, fine])
    owners = rng.integers(SEVERAL, 4, len(words))
    found = near_groups(prints, near, owners)
    assert {(group.members, group.distance) for group in found} == naive_groups(
        prints, near, owners
    )


def test_edges_are_thinned_without_losing_a_group(monkeypatch):
    monkeypatch.setattr(near_module, "_EDGES", 5)
    rng = np.random.default_rng(3)
    words = rng.integers(0, 2**64, 4, np.uint64)[rng.integers(0, 4, 80)]
    words ^= rng.integers(0, 8, 80).astype(np.uint64)
    prints = np.column_stack([words, np.zeros((80, 4), np.uint64)])
    owners = np.full(80, SEVERAL)
    found = {(group.members, group.distance) for group in near_groups(prints, 3, owners)}
    assert found == naive_groups(prints, 3, owners)


def test_a_fingerprint_that_all_share_is_one_group_and_quick():
    prints = np.repeat(np.arange(5, dtype=np.uint64)[None], 50_000, axis=0)
    [group] = near_groups(prints, 6, np.arange(50_000))
    assert len(group.members) == 50_000
    assert group.distance == 0
    assert near_groups(prints, 6, np.zeros(50_000, np.int64)) == []  # one person's only


def test_bits_are_counted_without_numpy_2(monkeypatch):
    words = np.random.default_rng(0).integers(0, 2**64, (7, 3), np.uint64)
    expected = [[int(word).bit_count() for word in row] for row in words]
    assert ones(words).tolist() == expected
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert ones(words).tolist() == expected
