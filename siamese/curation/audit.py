"""Audit a face folder with a model's embeddings: which pictures and names are wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from siamese.auditing.same_person import (
    FolderPairs,
    mean_cosines,
    same_people,
    same_people_across,
)
from siamese.auditing.suspects import Suspicion, find_suspects
from siamese.auditing.two_covariance import Labels, normalised
from siamese.config import AuditSettings, CheckSettings
from siamese.curation.audit_page import (
    Audit,
    Leak,
    MixedFolder,
    SamePerson,
    Suspect,
    audit_text,
    write_audit,
)
from siamese.curation.contents import results_folder, walk_folder
from siamese.curation.copies import Copies, Shot, exact_copies, near_copies, usable_shots
from siamese.curation.inspection import FactCache, gather_facts
from siamese.curation.manifests import restore_command
from siamese.curation.moves import carry_out, check_quarantine
from siamese.curation.plans import Move
from siamese.data.folder import require_folder, scan_folder, shared_names
from siamese.errors import UserError, first_few
from siamese.models.checkpoint import read_checkpoint
from siamese.models.device import scoring_device
from siamese.processors import processors
from siamese.report.embedding_files import given_embeddings, load_embeddings, save_embeddings
from siamese.report.embedding_sources import (
    Embeddings,
    checkpoint_path,
    embed_people,
    naming,
)
from siamese.verification.counts import count_pairs
from siamese.verification.enough import too_weak_to_audit
from siamese.verification.metrics import auc
from siamese.verification.scores import check_labels, normalise

_EXAMPLES = 3
_TYPICAL = 4
_BELIEVED = 0.5
_WEAK_AUC = 0.95
_TOLD_BY = 20_000
_HERE, _THERE = "here", "there"


@dataclass(frozen=True)
class AuditResult:
    """An audit that was written to ``out``; ``manifest`` undoes the quarantine, where one was."""

    audit: Audit
    out: Path
    manifest: Path | None

    def text(self) -> str:
        """What the command prints."""
        text = audit_text(self.audit, self.out, moved=self.manifest is not None)
        if self.manifest is not None and self.audit.root is not None:
            text += f"\nmoved {len(self.audit.suspects)} suspects to {self.manifest.parent}"
            text += f"\nundo: {restore_command(self.manifest, self.audit.root)}"
        return text


@dataclass(frozen=True)
class _People:
    """Embedded pictures with labels 0 ... P - 1 that are positions in the names."""

    embeddings: Embeddings
    labels: Labels
    names: tuple[str, ...]
    paths: tuple[str, ...]

    @property
    def vectors(self) -> np.ndarray:
        return self.embeddings.embeddings


def audit_folder(settings: AuditSettings) -> AuditResult:
    """Audit a folder; writes tables, a page and a plan, moves only when asked to.

    Raises:
        UserError: unusable folder, checkpoint or embeddings; fewer than two people; a quarantine
            without a folder.
    """
    root = None if settings.data is None else Path(settings.data)
    if root is not None:
        require_folder(root)
    name = "" if root is not None else Path(str(settings.embeddings)).resolve().stem
    out = results_folder("audit", root, settings.out, settings.runs, name)
    people = _people(settings, root)
    root = people.embeddings.root
    if settings.quarantine is not None:
        if root is None or settings.data is None:  # an .npz may come from anywhere
            raise UserError("`quarantine`: needs the folder of the pictures; give it with `data`")
        check_quarantine(root, Path(settings.quarantine))
    if settings.embeddings is None:  # another look with other settings need not embed again
        save_embeddings(out / "embeddings.npz", people.embeddings)
    against = None if settings.against is None else _against(settings, people)
    notes, weak = _model_notes(people, settings)
    suspicion, pairs = _judge(people)
    audit = Audit(
        origin=people.embeddings.origin,
        root=root,
        other_root=None if settings.against is None else Path(settings.against),
        people=len(people.names),
        pictures=len(people.labels),
        suspects=_suspects(people, suspicion, settings.suspicion),
        typical=_typical(people, suspicion),
        same=_same(people, pairs),
        mixed=_mixed(people, suspicion),
        leaks=() if against is None else _leaks(settings, people, suspicion, against, out),
        notes=(
            *people.embeddings.notes,
            *(() if against is None else against.embeddings.notes),
            *notes,
        ),
        weak=weak,
    )
    write_audit(out, audit, shown=settings.shown)
    manifest = None
    if settings.quarantine is not None and root is not None and audit.suspects:
        moves = [Move(suspect.path, None) for suspect in audit.suspects]
        manifest = carry_out(root, moves, Path(settings.quarantine), reason=f"audit in {out}")
    return AuditResult(audit, out, manifest)


def _people(settings: AuditSettings, root: Path | None) -> _People:
    """The embeddings to audit, checked, with compact labels."""
    if settings.embeddings is None:
        found = embed_people(settings)
    else:
        given = given_embeddings(settings, settings.embeddings)
        found = _loaded(given, Path(settings.embeddings), root)
    people = _compact(found)
    if len(people.names) < 2:
        raise UserError(f"{found.origin}: one person only; an audit compares people")
    if len(people.names) == len(people.labels):
        raise UserError(f"{found.origin}: nobody has two pictures; an audit compares them")
    return people


def _loaded(found: Embeddings, file: Path, root: Path | None) -> Embeddings:
    """Embeddings of a file: those of the pictures that are in the folder, where there is one."""
    if root is None and found.paths is not None and found.root is not None and found.root.is_dir():
        root = found.root
    if root is None:
        return replace(found, root=None)
    if found.paths is None:
        raise UserError(
            f"{file}: has no paths; without them its pictures cannot be found in {root}"
        )
    there = set(scan_folder(root).paths)
    kept = [at for at, path in enumerate(found.paths) if path in there]
    if not kept:
        raise UserError(f"{file}: not one of its pictures is in {root}; embed that folder")
    notes = list(found.notes)
    if gone := [path for path in found.paths if path not in there]:
        notes.append(f"{len(gone)} embedded pictures are not in {root}: {first_few(gone)}")
    if len(kept) < len(there):
        notes.append(f"{len(there) - len(kept)} pictures of {root} are not among the embeddings")
    return replace(
        found,
        embeddings=found.embeddings[kept],
        labels=found.labels[kept],
        paths=tuple(found.paths[at] for at in kept),
        notes=tuple(notes),
        root=root,
    )


def _against(settings: AuditSettings, people: _People) -> _People:
    """What the audited people are held against.

    Raises:
        UserError: unusable; embeddings of another model.
    """
    other = Path(str(settings.against))
    if settings.embeddings is None:
        require_folder(other)
        found = embed_people(replace(settings, data=str(other), part=None))
    elif other.is_dir():
        raise UserError(
            f"`against` {other}: is a folder; beside `embeddings` give the .npz of its pictures"
        )
    else:
        found = _loaded(load_embeddings(other, limit=settings.embeddings_limit), other, None)
    against = _compact(found)
    here, there = people.vectors.shape[1], against.vectors.shape[1]
    if here != there:
        raise UserError(
            f"`against` {other}: its embeddings have {there} dimensions, those of the audited ones "
            f"{here}"
        )
    return against


def _compact(found: Embeddings) -> _People:
    with naming(found):
        normalise(found.embeddings)  # refuses what is no number, and rows of zeros
        labels = check_labels(found.labels, len(found.embeddings))
        if not len(labels):
            raise UserError("holds no embedding")
    values, compact = np.unique(np.asarray(labels), return_inverse=True)
    names = tuple(str(v) if found.names is None else found.names[int(v)] for v in values)
    paths = found.paths or tuple(f"#{at}" for at in range(len(compact)))
    return _People(found, compact.astype(np.int64), names, paths)


def _judge(people: _People) -> tuple[Suspicion, FolderPairs]:
    """Suspicion of every picture, and the folders that are one person."""

    def watch(items: Iterable[int], words: str) -> Iterable[int]:
        return tqdm(list(items), words, disable=None, leave=False)

    labels = people.labels
    vectors = people.vectors
    suspicion = find_suspects(vectors, labels, watch=watch)
    pairs = same_people(vectors, labels, 1 - suspicion.probability)
    if not len(pairs.first):
        return suspicion, pairs
    # Folders of one person make each other's pictures look wrong: judge them as one.
    joined = coo_array(
        (np.ones(len(pairs.first)), (pairs.first, pairs.second)),
        shape=(len(people.names), len(people.names)),
    )
    groups, group = connected_components(joined, directed=False)
    if groups < 2:
        return suspicion, pairs
    merged = find_suspects(
        vectors, group[labels].astype(np.int64), neighbours=suspicion.neighbours, watch=watch
    )
    largest = np.zeros(groups, np.int64)
    for person in np.argsort(np.bincount(labels, minlength=len(people.names)), kind="stable"):
        largest[group[person]] = person
    owner = np.where(merged.owner < 0, -1, largest[merged.owner])
    return replace(merged, owner=owner, mixed=suspicion.mixed), pairs


def _suspects(people: _People, suspicion: Suspicion, least: float) -> tuple[Suspect, ...]:
    order = np.argsort(-suspicion.log_odds, kind="stable")
    return tuple(
        Suspect(
            people.paths[at],
            people.names[people.labels[at]],
            float(suspicion.probability[at]),
            None if suspicion.owner[at] < 0 else people.names[suspicion.owner[at]],
            float(suspicion.own_score[at]),
            float(suspicion.owner_score[at]),
        )
        for at in order
        if suspicion.probability[at] >= least
    )


def _typical(people: _People, suspicion: Suspicion) -> dict[str, tuple[str, ...]]:
    """Per person the pictures nearest to its typical face, of those that are believed."""
    believed = np.where(suspicion.probability < _BELIEVED, suspicion.own_score, -2)
    order = np.lexsort((-believed, people.labels))
    starts = np.searchsorted(people.labels[order], np.arange(len(people.names) + 1))
    return {
        name: tuple(people.paths[at] for at in order[starts[p] : starts[p + 1]][:_TYPICAL])
        for p, name in enumerate(people.names)
    }


def _same(people: _People, pairs: FolderPairs) -> tuple[SamePerson, ...]:
    scores = mean_cosines((people.vectors,) * 2, (people.labels,) * 2, pairs)
    unit = normalised(people.vectors)
    found = []
    for a, b, probability, score in zip(
        pairs.first, pairs.second, pairs.probability, scores, strict=True
    ):
        mine, theirs = (np.flatnonzero(people.labels == person) for person in (a, b))
        cosines = unit[mine] @ unit[theirs].T
        examples = []
        for _ in range(min(_EXAMPLES, *cosines.shape)):
            i, j = np.unravel_index(int(cosines.argmax()), cosines.shape)
            examples.append((people.paths[mine[i]], people.paths[theirs[j]]))
            cosines[i], cosines[:, j] = -2, -2
        found.append(
            SamePerson(
                people.names[a], people.names[b], float(probability), float(score), tuple(examples)
            )
        )
    return tuple(found)


def _mixed(people: _People, suspicion: Suspicion) -> tuple[MixedFolder, ...]:
    """Folders that fall into two people, each part's most typical pictures first."""
    mixed = suspicion.mixed
    found = []
    for person in np.argsort(-mixed.probability, kind="stable"):
        if mixed.probability[person] < _BELIEVED:
            break
        own = np.flatnonzero(people.labels == person)
        if mixed.smaller[own].sum() < 2:  # one picture is a suspect, and no second person
            continue
        parts = []
        for part in (own[~mixed.smaller[own]], own[mixed.smaller[own]]):
            unit = normalised(people.vectors[part])
            nearest = np.argsort(-(unit @ unit.mean(0)), kind="stable")
            parts.append(tuple(people.paths[at] for at in part[nearest]))
        found.append(
            MixedFolder(people.names[person], float(mixed.probability[person]), parts[0], parts[1])
        )
    return tuple(found)


def _leaks(
    settings: AuditSettings, people: _People, suspicion: Suspicion, against: _People, out: Path
) -> tuple[Leak, ...]:
    """What the audited folder shares with the other one."""
    leaks: list[Leak] = []
    here, there = people.embeddings.root, against.embeddings.root
    if here is not None and there is not None:
        workers = processors() if settings.workers is None else settings.workers
        cache = FactCache(out / "facts.jsonl")
        shots = [
            *_marked(here, _HERE, cache, workers=workers),
            *_marked(there, _THERE, cache, workers=workers),
        ]
        leaks = _picture_leaks(shots, people, against)
    return (*leaks, *_person_leaks(people, suspicion, against))


def _marked(root: Path, mark: str, cache: FactCache, *, workers: int) -> list[Shot]:
    """A folder's usable pictures, all of them as if of one person."""
    contents = walk_folder(root)
    known = gather_facts(root, contents.files(), cache, workers=workers)
    return [replace(shot, person=mark) for shot in usable_shots(contents, known)]


def _picture_leaks(shots: Sequence[Shot], people: _People, against: _People) -> list[Leak]:
    """Files and near-duplicates that are in both folders; the score alone is the model's."""
    same = _pairs(exact_copies(shots)[1])
    leaks = [Leak("file", first, second, 1.0) for first, second in same]
    places = [{path: at for at, path in enumerate(side.paths)} for side in (people, against)]
    for first, second in _pairs(near_copies(shots, CheckSettings().near)[1]):
        if (first, second) in same:
            continue
        score = float("nan")
        if first in places[0] and second in places[1]:
            one = normalised(people.vectors[[places[0][first]]])[0]
            other = normalised(against.vectors[[places[1][second]]])[0]
            score = float(one @ other)
        leaks.append(Leak("picture", first, second, score))
    return leaks


def _pairs(groups: Sequence[Copies]) -> dict[tuple[str, str], None]:
    """Of each group every picture here with the best one there, sorted."""
    pairs = []
    for group in groups:
        there = [shot.path for shot in group.shots if shot.person == _THERE]
        pairs += [(shot.path, there[0]) for shot in group.shots if shot.person == _HERE]
    return dict.fromkeys(sorted(pairs))


def _person_leaks(people: _People, suspicion: Suspicion, against: _People) -> list[Leak]:
    """People who are in both folders: by the model, and by their names."""
    vectors, labels = (people.vectors, against.vectors), (people.labels, against.labels)
    found = same_people_across(*vectors, labels, 1 - suspicion.probability)
    shared: dict[tuple[int, int], Literal["person", "name"]] = dict.fromkeys(
        zip(found.first.tolist(), found.second.tolist(), strict=True), "person"
    )
    for name in shared_names(people.names, against.names):
        other = shared_names(against.names, [name])[0]
        shared.setdefault((people.names.index(name), against.names.index(other)), "name")
    first, second = np.array(list(shared), np.int64).reshape(-1, 2).T
    scores = mean_cosines(vectors, labels, FolderPairs(first, second, np.ones(len(shared))))
    return [
        Leak(kind, people.names[a], against.names[b], float(score))
        for ((a, b), kind), score in zip(shared.items(), scores, strict=True)
    ]


def _some_people(labels: Labels) -> Labels:
    """Pictures of people at random, about 20,000: enough of them to tell a weak model."""
    counts = np.bincount(labels)
    people = np.random.default_rng(0).permutation(len(counts))
    before = counts[people].cumsum() - counts[people]
    return np.flatnonzero(np.isin(labels, people[before < _TOLD_BY]))


def _model_notes(people: _People, settings: AuditSettings) -> tuple[Sequence[str], str | None]:
    """How far the model can be believed on these people, and why nothing should be moved by it."""
    notes = []
    device = scoring_device(settings.device)
    some = _some_people(people.labels)
    value = auc(count_pairs(people.vectors[some], people.labels[some], device=device))
    if value < _WEAK_AUC:
        notes.append(
            f"the model tells these folders apart with AUC {value:.3f} only: it misses wrong "
            "pictures and suspects right ones; look before you move anything"
        )
    if settings.embeddings is None:  # people that trained it flatter the model
        known = read_checkpoint(checkpoint_path(settings), keys=["figures"])["figures"].get(
            "auc", value
        )
        value = min(value, float(known))
    return notes, too_weak_to_audit(value)
