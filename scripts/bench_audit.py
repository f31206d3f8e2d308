#!/usr/bin/env python
"""How many wrong pictures does siamese-data audit find? Noise is put into a clean folder.

A tenth of the pictures moves into random other folders, five folders end with 30 % wrong ones.
The audit's ranking is held against a plain "distance to the folder's mean", with (A) models
trained on other people (each half of the people is audited by the model of the other half) and
(B) models trained on the noisy folder itself. Then (C) other kinds of noise, (D) people cut into
two folders, (E) two people in one. Links only, nothing of DATA is copied; models that are in WORK
are not trained again.

  python scripts/bench_audit.py --data FACES --work DIR     # seven trainings, then minutes
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
from scipy.stats import t as student
from sklearn.metrics import average_precision_score

from siamese.auditing.mixed import find_mixed
from siamese.auditing.same_person import same_people
from siamese.auditing.suspects import Suspicion, find_suspects
from siamese.auditing.two_covariance import normalised
from siamese.config import EmbedSettings
from siamese.report.embedding_files import load_embeddings, save_embeddings
from siamese.report.embedding_sources import embed_people

SEEDS = 5
HALVES = ("half0", "half1")
RECIPE = Path(__file__).resolve().parents[1] / "configs" / "face" / "from_scratch.yaml"


def moved(
    labels: np.ndarray, seed: int, *, share: float = 0.10, heavy: int = 5, wrong: float = 0.30
) -> np.ndarray:
    """New labels: a share of the pictures moved, a few folders with so many wrong pictures."""
    rng = np.random.default_rng(seed)
    people = int(labels.max()) + 1
    given = labels.copy()
    order = rng.permutation(len(labels))[: round(share * len(labels))]
    counts = np.bincount(labels, minlength=people)
    quota = {
        int(p): round(counts[p] * wrong / (1 - wrong)) for p in rng.permutation(people)[:heavy]
    }
    for at in order:
        wanting = [p for p, left in quota.items() if left > 0 and p != labels[at]]
        if wanting:
            given[at] = wanting[0]
            quota[wanting[0]] -= 1
        else:
            others = [p for p in range(people) if p != labels[at] and p not in quota]
            given[at] = rng.choice(others)
    return given


def by_strangers(labels: np.ndarray, seed: int, people: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Wrong pictures of people who have no folder: which pictures are there, and their labels."""
    rng = np.random.default_rng(seed)
    strangers = rng.permutation(int(labels.max()) + 1)[:people]
    known = np.flatnonzero(~np.isin(labels, strangers))
    added = rng.permutation(np.flatnonzero(np.isin(labels, strangers)))[: len(known) // 9]
    given = labels.copy()
    given[added] = rng.choice(np.unique(labels[known]), len(added))
    return np.sort(np.concatenate([known, added])), given


def by_one_other(labels: np.ndarray, seed: int, folders: int = 5) -> np.ndarray:
    """New labels: in some folders 40 % of the pictures are of one other person."""
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(int(labels.max()) + 1)[: 2 * folders]
    given = labels.copy()
    for into, of in zip(chosen[:folders], chosen[folders:], strict=True):
        count = round(np.sum(labels == into) * 0.4 / 0.6)
        taken = rng.permutation(np.flatnonzero(labels == of))
        given[taken[: min(count, len(taken) // 2)]] = into
    return given


def distance_to_mean(embeddings: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The baseline: cosine distance to the mean of the folder."""
    rows = normalised(embeddings)
    means = np.stack([rows[labels == p].mean(0) for p in range(int(labels.max()) + 1)])
    return np.asarray(1 - (rows * normalised(means)[labels]).sum(1))


def judged(embeddings: np.ndarray, given: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Average precision of both rankings; precision and recall of the audit's suspects."""
    given = np.unique(given, return_inverse=True)[1].astype(np.int64)
    found = find_suspects(embeddings, given)
    suspects = found.probability >= 0.5
    return {
        "audit": float(average_precision_score(truth, found.log_odds)),
        "baseline": float(average_precision_score(truth, distance_to_mean(embeddings, given))),
        "precision": float(truth[suspects].mean()) if suspects.any() else float("nan"),
        "recall": float(suspects[truth].mean()),
        "suspects": float(suspects.sum()),
        "wrong": float(truth.sum()),
    }


def show(title: str, rows: list[dict[str, float]]) -> None:
    """A line per noise seed, their means, and the interval of the difference."""
    print(f"\n{title}")
    print("seed  wrong  suspects  precision  recall  AP audit  AP baseline  difference")
    gain = np.array([row["audit"] - row["baseline"] for row in rows])
    for seed, row in enumerate(rows):
        print(
            f"{seed:4d}  {row['wrong']:5.0f}  {row['suspects']:8.0f}  {row['precision']:9.3f}  "
            f"{row['recall']:6.3f}  {row['audit']:8.3f}  {row['baseline']:11.3f}  "
            f"{gain[seed]:10.3f}"
        )
    means = {key: np.mean([row[key] for row in rows]) for key in rows[0]}
    half = student.ppf(0.975, len(gain) - 1) * gain.std(ddof=1) / np.sqrt(len(gain))
    print(
        f"mean precision {means['precision']:.3f}, recall {means['recall']:.3f}, AP "
        f"{means['audit']:.3f} against {means['baseline']:.3f}; difference {gain.mean():.3f} "
        f"[{gain.mean() - half:.3f}, {gain.mean() + half:.3f}] (95 %, {len(gain)} noise seeds)",
        flush=True,
    )


def joined(parts: list[dict[str, float]]) -> dict[str, float]:
    """Both halves of the people as one row."""
    wrong = np.array([part["wrong"] for part in parts])
    suspects = np.array([part["suspects"] for part in parts])
    hits = suspects * [part["precision"] for part in parts]
    row = {key: float(np.mean([part[key] for part in parts])) for key in ("audit", "baseline")}
    return {
        **row,
        "precision": float(hits.sum() / suspects.sum()),
        "recall": float(hits.sum() / wrong.sum()),
        "suspects": float(suspects.sum()),
        "wrong": float(wrong.sum()),
    }


def cut_in_two(
    embeddings: np.ndarray, labels: np.ndarray, seed: int, people: int, *, in_order: bool
) -> tuple[int, int, int]:
    """Cut people's folders in two; (pairs found, pairs there, false alarms)."""
    rng = np.random.default_rng(100 + seed)
    count = int(labels.max()) + 1
    given, truth = labels.copy(), set()
    for number, person in enumerate(rng.permutation(count)[:people]):
        own = np.flatnonzero(labels == person)
        shuffled = own if in_order else rng.permutation(own)
        part = shuffled[len(own) // 2 :]
        given[part] = count + number
        truth.add((int(person), count + number))
    found: Suspicion = find_suspects(embeddings, given)
    pairs = same_people(embeddings, given, 1 - found.probability)
    told = set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    return len(told & truth), len(truth), len(told - truth)


def mixed_folders(embeddings: np.ndarray, labels: np.ndarray) -> set[int]:
    """Folders that are told to hold two people."""
    found = find_mixed(embeddings, labels)
    return {int(p) for p in np.flatnonzero(found.probability >= 0.5)}


def link_folders(data: Path, work: Path) -> tuple[list[str], np.ndarray, list[Path]]:
    """Two halves of the people, and the noisy folders, as links."""
    people = sorted(folder.name for folder in data.iterdir() if folder.is_dir())
    paths = [(p, file) for p, name in enumerate(people) for file in sorted((data / name).iterdir())]
    labels = np.array([p for p, _ in paths])
    order = np.random.default_rng(0).permutation(len(people))
    for half, name in enumerate(HALVES):
        for person in order[half::2]:
            place(work / name / people[person], data / people[person])
    for seed in range(SEEDS):
        for at, person in enumerate(moved(labels, seed)):
            file = paths[at][1]
            place(work / f"noisy{seed}" / people[person] / f"{at:05d}{file.suffix}", file)
    return people, labels, [file for _, file in paths]


def place(link: Path, target: Path) -> None:
    """A link, where there is none."""
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(target.resolve())


def train(work: Path, name: str, epochs: int, backbone: str) -> Path:
    """The best checkpoint of a run in WORK; trained where it is not there."""
    best = work / "checkpoints" / name / "best.pt"
    if not best.exists():
        settings = [
            f"--data={work / name}", f"--name={name}", f"--epochs={epochs}",
            f"--backbone={backbone}", "--model.embedding_dim=128", "--split.validation=0.15",
            "--split.test=0", f"--runs={work / 'runs'}", f"--checkpoints={work / 'checkpoints'}",
        ]  # fmt: skip
        command = "from siamese.cli.train import main; main()"
        subprocess.run(
            [sys.executable, "-c", command, "--config", str(RECIPE), *settings], check=True
        )
    return best


def embedded(
    work: Path, checkpoint: Path, folder: Path
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Embeddings, labels and paths of a folder; from a file where they are known."""
    file = work / "embeddings" / f"{checkpoint.parent.name}-{folder.name}.npz"
    if not file.exists():
        save_embeddings(
            file, embed_people(EmbedSettings(checkpoint=str(checkpoint), data=str(folder)))
        )
    people = load_embeddings(file)
    return people.embeddings, people.labels.astype(np.int64), list(people.paths or ())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="a clean folder of faces")
    parser.add_argument("--work", type=Path, required=True, help="for links, models, embeddings")
    parser.add_argument("--backbone", default="test_resnet")
    parser.add_argument("--epochs", type=int, nargs=2, default=(16, 8), help="of A and of B")
    given = parser.parse_args()
    _, labels, _ = link_folders(given.data, given.work)
    halves = []
    for model, audited in (HALVES, HALVES[::-1]):
        checkpoint = train(given.work, model, given.epochs[0], given.backbone)
        halves.append(embedded(given.work, checkpoint, given.work / audited)[:2])

    def on_halves(noise: str, seed: int) -> dict[str, float]:
        parts = []
        for vectors, own in halves:
            kept, label = np.arange(len(own)), own
            if noise == "strangers":
                kept, label = by_strangers(own, seed)
            elif noise == "one other":
                label = by_one_other(own, seed)
            else:
                label = moved(own, seed, wrong=float(noise))
            parts.append(judged(vectors[kept], label[kept], (label != own)[kept]))
        return joined(parts)

    show("A. models of other people", [on_halves("0.3", seed) for seed in range(SEEDS)])
    rows = []
    for seed in range(SEEDS):
        checkpoint = train(given.work, f"noisy{seed}", given.epochs[1], given.backbone)
        vectors, label, paths = embedded(given.work, checkpoint, given.work / f"noisy{seed}")
        truth = label != labels[[int(Path(path).stem) for path in paths]]
        rows.append(judged(vectors, label, truth))
    show("B. models of the noisy folder itself", rows)
    for noise, words in (
        ("0.4", "five folders with 40 % wrong pictures of many people"),
        ("strangers", "a tenth wrong pictures, of people without a folder"),
        ("one other", "five folders with 40 % wrong pictures of one other person"),
    ):
        rows = [on_halves(noise, seed) for seed in range(SEEDS)]
        show(f"C. models of other people, {words}", rows)
    print("\nD. ten people cut into two folders each, models of other people")
    for in_order in (False, True):
        found = [
            cut_in_two(vectors, own, seed, 5, in_order=in_order)
            for seed in range(SEEDS)
            for vectors, own in halves
        ]
        hits, there, false = (sum(column) for column in zip(*found, strict=True))
        how = "in the order of the files" if in_order else "at random"
        print(f"cut {how}: {hits} of {there} pairs found, {false} false alarms")

    print("\nE. two people under one name, models of other people")
    clean = [mixed_folders(vectors, own) for vectors, own in halves]
    print(
        f"clean folders: {sum(map(len, clean))} of {sum(own.max() + 1 for _, own in halves)} told"
    )
    hits = false = there = 0
    for seed in range(SEEDS):
        for vectors, own in halves:
            given = by_one_other(own, seed)
            truth = {int(p) for p in np.unique(given[given != own])}
            told = mixed_folders(vectors, given)
            hits, false, there = (
                hits + len(told & truth),
                false + len(told - truth),
                there + len(truth),
            )
    print(f"40 % of one other person: {hits} of {there} found, {false} others told")
    for vectors, own in halves:
        suspects = find_suspects(vectors, own).probability >= 0.5
        print(f"suspects in a clean half: {suspects.sum()} of {len(own)}")


if __name__ == "__main__":
    main()
