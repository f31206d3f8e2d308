"""The commands that repair what a check found, with their plans of moves."""

from __future__ import annotations

import os
import posixpath
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from siamese.curation.contents import Contents
from siamese.curation.copies import Copies, superfluous
from siamese.curation.findings import ABOUT, Cases, Finding, Kind, right_name
from siamese.curation.inspection import FileFacts
from siamese.curation.plans import Move, mend_command, write_plan
from siamese.curation.shell import command_line, path_word

_LONGEST = 255  # bytes of a name that file systems take
# What is moved first is left alone by the plans that follow.
_FIRST: tuple[Kind, ...] = (
    "unreadable", "zero_bytes", "bomb", "failed", "linked_folder", "copies_across", "near_across",
    "copies_within", "near_within", "blank", "too_small", "odd_aspect",
)  # fmt: skip
_MERGED: tuple[Kind, ...] = ("twin_folders", "shared_pictures", "similar_names")
_LAST: tuple[Kind, ...] = (
    "outside", "special", "no_pictures", "one_picture", "not_picture", "hidden",
)  # fmt: skip
_CONVERTED: tuple[Kind, ...] = ("animated", "rotated", "colour_mode")


def make_plans(
    contents: Contents,
    facts: Mapping[str, FileFacts],
    cases: Cases,
    copies: Mapping[Kind, Sequence[Copies]],
    same_person: Mapping[str, str],
    near: int,
) -> dict[Kind, list[Move]]:
    """Moves by kind of finding, none of them of what another one moves.

    Args:
        contents: of the folder.
        facts: by path.
        cases: by kind of finding.
        copies: the groups of the four kinds of copies.
        same_person: per folder that seems to be one person with others the name of their group.
        near: coarse fingerprint bits in which near-duplicates may differ.
    """
    usable = contents.usable(facts)
    planner = Planner(contents.names)
    taken_out = _copies_taken_out(copies, same_person, near)
    plans: dict[Kind, list[Move]] = {}

    def take_out(kind: Kind) -> None:
        paths = taken_out.get(kind)
        if paths is None:
            paths = [path for case in cases.get(kind, ()) for path in case.paths]
        plans[kind] = planner.take_out(paths)

    for kind in _FIRST:
        take_out(kind)
    home: dict[str, str] = {}  # of people whose folder becomes part of another one
    for kind in _MERGED:
        plans[kind] = []
        for case in cases.get(kind, ()):
            # Of equal ones that without spaces round its name.
            largest = max(case.paths, key=lambda n: (usable[n], n == n.strip(), -len(n)))
            for name in case.paths:
                if name != largest:
                    plans[kind] += _merge(planner, contents, facts, name, largest)
                    home.setdefault(name, largest)
    wrong = [path for case in cases.get("wrong_extension", ()) for path in case.paths]
    plans["wrong_extension"] = planner.rename(
        [(path, right_name(path, facts[path].format)) for path in wrong]
    )
    plans["nested"] = []
    for nested in contents.nested:
        person = nested.path.split("/")[0]
        plans["nested"] += planner.move_into(nested.files, home.get(person, person))
    for kind in _LAST:
        take_out(kind)
    return plans


def _copies_taken_out(
    copies: Mapping[Kind, Sequence[Copies]], same_person: Mapping[str, str], near: int
) -> dict[Kind, list[str]]:
    """Paths of the copies that go; arguments as of :func:`make_plans`."""
    taken_out: dict[Kind, list[str]] = {
        "copies_within": [s.path for group in copies["copies_within"] for s in group.shots[1:]],
        "near_within": [
            s.path for group in copies["near_within"] for s in superfluous(group, near)
        ],
    }
    for kind in ("copies_across", "near_across"):
        taken_out[kind] = [
            shot.path
            for group in copies[kind]
            if len({same_person.get(name, name) for name in group.people()}) > 1
            for shot in group.shots
        ]
    return taken_out


def _merge(
    planner: Planner, contents: Contents, facts: Mapping[str, FileFacts], name: str, into: str
) -> list[Move]:
    """A folder's files into another one; those that are there already are taken out."""
    there = {facts[file.path].content for file in contents.people[into]} - {""}
    moves = []
    for file in contents.people[name]:
        content = facts[file.path].content
        if content in there:
            moves += planner.take_out([file.path])
        else:
            moves += planner.move_into([file.path], into)
        if content:
            there.add(content)
    return moves


def write_plans(
    root: Path, out: Path, cases: Cases, plans: Mapping[Kind, Sequence[Move]]
) -> tuple[Finding, ...]:
    """Write OUT/plans/KIND.csv for each kind that moves mend; an earlier run's plans go.

    Returns:
        The findings with their commands, the worst first.
    """
    other = {
        **dict.fromkeys(_CONVERTED, _convert_command(root)),
        "closed_folder": command_line("chmod", "-R", "u+rwX", path_word(root)),
    }
    findings = []
    for kind in ABOUT:
        path = out / "plans" / f"{kind}.csv"
        path.unlink(missing_ok=True)  # an earlier run's, which no longer fits
        of_kind, moves = tuple(cases.get(kind, ())), plans.get(kind, ())
        if of_kind and moves:
            write_plan(path, moves)
            findings.append(Finding(kind, of_kind, mend_command(root, path), path, len(moves)))
        elif of_kind:
            findings.append(Finding(kind, of_kind, other.get(kind)))
    return tuple(findings)


def _convert_command(root: Path) -> str:
    beside = (root if root.name else root.resolve()).parent / f"{root.resolve().name}-rgb"
    return command_line("siamese-data", "convert", path_word(root), "--out", path_word(beside))


class Planner:
    """Moves for one folder after the other, so that all plans can be carried out in any order.

    Args:
        names: per folder every name in it; the root is the empty string.
    """

    def __init__(self, names: Mapping[str, Iterable[str]]) -> None:
        self._taken = {folder: {_same(name) for name in inside} for folder, inside in names.items()}
        self._moved: set[str] = set()
        self._touched: set[str] = set()  # folders of which something is moved, or into which

    def take_out(self, paths: Iterable[str]) -> list[Move]:
        """Files or folders into the quarantine; those that another plan moves are left to it."""
        return [Move(path, None) for path in paths if self._claim(path)]

    def move_into(self, paths: Iterable[str], folder: str) -> list[Move]:
        """Files into a folder, under names that are free there."""
        return [
            Move(path, self._free(folder, posixpath.basename(path)))
            for path in paths
            if self._claim(path)
        ]

    def rename(self, pairs: Sequence[tuple[str, str]]) -> list[Move]:
        """Files to new paths in the same folder, or to free names like them."""
        return [
            Move(path, self._free(*posixpath.split(wanted)))
            for path, wanted in pairs
            if self._claim(path)
        ]

    def _claim(self, path: str) -> bool:
        above = _above(path)
        if path in self._moved or path in self._touched or self._moved.intersection(above):
            return False
        self._moved.add(path)
        self._touched.update(above)
        return True

    def _free(self, folder: str, name: str) -> str:
        taken = self._taken.setdefault(folder, set())
        self._touched.update((folder, *_above(folder)))
        stem, ending = posixpath.splitext(name)
        number, tried = 2, name
        while _same(tried) in taken:
            tried = _shortened(stem, f"-{number}{ending}")
            number += 1
        taken.add(_same(tried))
        return f"{folder}/{tried}" if folder else tried


def _above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:number]) for number in range(1, len(parts))]


def _same(name: str) -> str:
    """Equal for names that some file system takes for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def _shortened(stem: str, tail: str) -> str:
    while len(os.fsencode(stem + tail)) > _LONGEST and stem:
        stem = stem[:-1]
    return stem + tail
