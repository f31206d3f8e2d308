"""Check a face folder without a model: what is wrong with its files, names and copies."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from filelock import FileLock

from siamese.config import CheckSettings
from siamese.curation.checking.checked import Checked
from siamese.curation.checking.copies import (
    Copies,
    Shot,
    exact_copies,
    groups_of,
    near_copies,
    people_who_share,
)
from siamese.curation.checking.facts import open_store
from siamese.curation.checking.file_findings import (
    Findings,
    file_findings,
    folder_findings,
    is_blank,
)
from siamese.curation.checking.findings import Found, Kind
from siamese.curation.checking.folder_names import find_twins, spelled
from siamese.curation.checking.gathering import gather_facts
from siamese.curation.checking.inspection import FileFacts
from siamese.curation.checking.mending import make_plans, write_plans
from siamese.curation.checking.picture_findings import Contents, walk_folder
from siamese.errors import UserError
from siamese.files.writing import write_json
from siamese.processors import processors


def check_folder(settings: CheckSettings) -> Checked:
    """Check a folder; writes check.json, check.html, check.png and a plan per kind of finding.

    Raises:
        UserError: no folder; the results would lie inside it, or cannot be written.
    """
    root = Path(str(settings.data))
    contents = walk_folder(root)
    out = _place_of_results(root, settings)
    workers = processors() if settings.workers is None else settings.workers
    files = contents.files()
    with open_store(out / "facts.sqlite") as store:
        facts = gather_facts(root, files, store, workers=workers)
    found = file_findings(facts, min_side=settings.min_side, max_aspect=settings.max_aspect)
    for kind, cases in folder_findings(contents, facts).items():
        found.setdefault(kind, []).extend(cases)
    shots = usable_shots(contents, facts)
    counts = {
        person: sum(facts[file.path].status == "usable" for file in mine)
        for person, mine in contents.people.items()
    }
    copies = _find_copies(found, shots, settings.near)
    same_person = _find_same_people(found, list(contents.people), copies["copies_across"], counts)
    plans = make_plans(contents, facts, found, copies, same_person, settings.near)
    from siamese.curation.checking.check_page import write_check_page

    with FileLock(out / ".check.lock"):  # results of two runs at once would get mixed
        checked = Checked(
            root,
            out,
            {person: number for person, number in counts.items() if number},
            len(files),
            write_plans(root, out, found, plans),
            tuple(store.notes),
        )
        write_check_page(checked, facts, settings)
        write_json(out / "check.json", {**checked.as_dict(), "settings": vars(settings)})
    return checked


def _place_of_results(root: Path, settings: CheckSettings) -> Path:
    name = root.resolve().name or "root"
    out = Path(settings.runs) / f"check-{name}" if settings.out is None else Path(settings.out)
    real, place = os.path.realpath(root), os.path.realpath(out)
    if os.path.commonpath([real, place]) == real:
        raise UserError(f"--out {out}: lies inside {root}; give a folder outside of it")
    return out


def usable_shots(contents: Contents, facts: Mapping[str, FileFacts]) -> list[Shot]:
    """The usable pictures of all people."""
    return [
        Shot(
            file.path,
            person,
            seen.content,
            None if is_blank(seen) else seen.fingerprint,
            seen.width * seen.height,
            file.size,
            file.is_link,
        )
        for person, files in contents.people.items()
        for file in files
        if (seen := facts[file.path]).status == "usable"
    ]


def _find_copies(found: Findings, shots: Sequence[Shot], near: int) -> dict[Kind, list[Copies]]:
    within, across = exact_copies(shots)
    near_within, near_across = near_copies(shots, near)
    copies: dict[Kind, list[Copies]] = {
        "copies_within": within,
        "copies_across": across,
        "near_within": near_within,
        "near_across": near_across,
    }
    for kind, groups in copies.items():
        groups.sort(key=lambda group: (group.distance, group.shots[0].path))
        for group in groups:
            detail = f"{group.distance} bits apart" if kind.startswith("near") else ""
            found.setdefault(kind, []).append(
                Found(tuple(shot.path for shot in group.shots), detail)
            )
    return copies


def _find_same_people(
    found: Findings, people: Sequence[str], across: Sequence[Copies], counts: Mapping[str, int]
) -> dict[str, str]:
    """Tell folders that are one person; per such folder the name of its group."""
    pairs = []
    for twins in find_twins(people):
        kind: Kind = "twin_folders" if twins.sure else "similar_names"
        spellings = " / ".join(map(spelled, twins.names))
        detail = f"{', '.join(twins.differences)}: {spellings}"
        found.setdefault(kind, []).append(Found(twins.names, detail))
        pairs += [(twins.names[0], name) for name in twins.names[1:]]
    named = groups_of(pairs)
    sharing = people_who_share(across, counts)
    groups: dict[str, list[str]] = {}
    for person, head in sharing.items():
        groups.setdefault(head, []).append(person)
    for group in groups.values():
        if len({named.get(person, person) for person in group}) > 1:  # else told by their names
            found.setdefault("shared_pictures", []).append(Found(tuple(sorted(group))))
    return groups_of([*pairs, *((head, person) for person, head in sharing.items())])
