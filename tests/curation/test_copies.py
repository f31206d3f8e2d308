"""Near fingerprints: the same pairs and groups as comparing all with all."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from siamese.curation import copies
from siamese.curation.copies import FINE_LIMIT, SEVERAL, near_groups, near_pairs


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


def differing(first, second):
    return [(int(x) ^ int(y)).bit_count() for x, y in zip(first, second, strict=True)]


def naive_groups(prints, near, owners):
    """Connected components by repeated merging; the closest distance of each."""
    count = len(prints)
    group, closest = list(range(count)), {}
    edges = []
    for a in range(count):
        for b in range(a + 1, count):
            bits = differing(prints[a], prints[b])
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
    assert set(found) == naive_groups(prints, near, owners)


def test_edges_are_thinned_without_losing_a_group(monkeypatch):
    monkeypatch.setattr(copies, "_EDGES", 5)
    rng = np.random.default_rng(3)
    words = rng.integers(0, 2**64, 4, np.uint64)[rng.integers(0, 4, 80)]
    words ^= rng.integers(0, 8, 80).astype(np.uint64)
    prints = np.column_stack([words, np.zeros((80, 4), np.uint64)])
    owners = np.full(80, SEVERAL)
    assert set(near_groups(prints, 3, owners)) == naive_groups(prints, 3, owners)


def test_a_fingerprint_that_all_share_is_one_group_and_quick():
    prints = np.repeat(np.arange(5, dtype=np.uint64)[None], 50_000, axis=0)
    [(members, distance)] = near_groups(prints, 6, np.arange(50_000))
    assert len(members) == 50_000
    assert distance == 0
    assert near_groups(prints, 6, np.zeros(50_000, np.int64)) == []  # one person's only


@settings(deadline=None, max_examples=60)
@given(clustered_words(), st.integers(0, 16))
def test_pairs_are_those_of_comparing_all_with_all(words, near):
    prints = np.column_stack([words, np.zeros((len(words), 4), np.uint64)])
    blocks = near_pairs(prints, near, np.full(len(words), SEVERAL))
    pairs = [tuple(map(int, pair)) for block in blocks for pair in zip(*block, strict=True)]
    expected = [
        (a, b, bits)
        for a in range(len(words))
        for b in range(a + 1, len(words))
        for bits in differing(words[a : a + 1], words[b : b + 1])
        if bits <= near
    ]
    assert sorted(pairs) == expected
