"""Compare two models on the same pictures: differences with paired intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from siamese.config import CompareSettings, ReportSettings
from siamese.errors import UserError, first_few
from siamese.report.embedding_files import given_embeddings, is_embeddings
from siamese.report.embedding_sources import Embeddings, embed_people
from siamese.report.verification_report import Verified, make_folder, verify, write_results
from siamese.verification.bootstrap import Interval, quantile_interval

# Figures that are compared, and whether more of them is better.
COMPARED = {
    "auc": ("AUC", True),
    "ap": ("AP", True),
    "eer": ("EER", False),
    "tar_at_far_1e-2": ("TAR@FAR=1e-2", True),
    "tar_at_far_1e-3": ("TAR@FAR=1e-3", True),
}


@dataclass(frozen=True)
class Difference:
    """One figure of two models.

    Attributes:
        b: the second model's figure.
        interval: 95 % interval of the difference; None without resamples.
        verdict: in words.
    """

    name: str
    title: str
    a: float
    b: float
    difference: float
    interval: Interval
    supported: bool
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """Two models on the same pictures.

    Attributes:
        names: what A and B are, in words.
        differences: one per figure.
    """

    names: tuple[str, str]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]
    files: tuple[Path, ...]


def compare(settings: CompareSettings) -> Comparison:
    """Judge both models on the same pictures and write ``compare.json``.

    Raises:
        UserError: the pictures of both are not the same.
    """
    assert settings.a is not None, "check_evaluation asks for both"
    assert settings.b is not None, "check_evaluation asks for both"
    a, b = (model_people(settings, given) for given in (settings.a, settings.b))
    a, b = same_pictures(a, b)
    verified = [
        verify(one, device=settings.device, resamples=settings.resamples, seed=settings.seed)
        for one in (a, b)
    ]
    differences = differences_of(*verified)
    names = ["compare", model_name(settings.a), model_name(settings.b)]
    names += [] if settings.data is None else [Path(settings.data).resolve().name]
    names += [] if settings.part is None else [settings.part]
    out = make_folder(Path(settings.out or Path(settings.runs) / "-".join(names)))
    content = {
        "a": {"origin": a.origin, **verified[0].figures},
        "b": {"origin": b.origin, **verified[1].figures},
        "differences": {
            one.name: {
                name: getattr(one, name)
                for name in ("difference", "interval", "supported", "verdict")
            }
            for one in differences
        },
    }
    notes = notes_of_both((*a.notes, *verified[0].notes), (*b.notes, *verified[1].notes))
    origin = f"{a.origin}; {b.origin}"
    path = write_results(out / "compare.json", content, origin, notes, asdict(settings))
    return Comparison((a.origin, b.origin), differences, notes, (path,))


def model_name(given: str) -> str:
    """A run's name, with the file's unless it is ``best.pt``; the name of a file of embeddings."""
    model = Path(given)
    if is_embeddings(given):
        name = model.stem
    elif model.is_dir():
        name = model.resolve().name
    else:
        run = model.resolve().parent.name
        name = run if model.name == "best.pt" else f"{run}-{model.stem}"
    return name[:60]


def model_people(settings: CompareSettings | ReportSettings, given: str) -> Embeddings:
    """The embeddings of one of the models: a file of them, or a checkpoint's on the people set."""
    if is_embeddings(given):
        return given_embeddings(settings, given, spare=True)
    return embed_people(replace(settings, checkpoint=given))


def notes_of_both(a: Sequence[str], b: Sequence[str]) -> tuple[str, ...]:
    """Notes on two models: those of one of them say which."""
    both = [note for note in a if note in b]
    only_a = [f"A: {note}" for note in a if note not in both]
    return (*both, *only_a, *(f"B: {note}" for note in b if note not in both))


def same_pictures(a: Embeddings, b: Embeddings) -> tuple[Embeddings, Embeddings]:
    """Both with the pictures in the same order.

    Raises:
        UserError: one has pictures that the other lacks, or other people on them.
    """
    if a.paths is None or b.paths is None:
        who_a, who_b = a.labels, b.labels
        if a.names is not None and b.names is not None:
            who_a, who_b = (np.array(one.names, object)[one.labels] for one in (a, b))
        if not np.array_equal(who_a, who_b):
            raise UserError(
                f"{a.origin} and {b.origin} have other labels, and no paths to match them by: "
                "embed the same pictures in the same order"
            )
        return a, b
    only = sorted(set(a.paths) ^ set(b.paths))
    if only:
        raise UserError(
            f"{a.origin} and {b.origin} are not on the same pictures: {len(only)} are in one of "
            f"them only ({first_few(only)}); embed the same folder with both"
        )
    where = {path: position for position, path in enumerate(b.paths)}
    order = np.array([where[path] for path in a.paths])
    who = set(zip(a.labels.tolist(), b.labels[order].tolist(), strict=True))
    if not len(who) == len({one for one, _ in who}) == len({other for _, other in who}):
        raise UserError(
            f"{a.origin} and {b.origin} say otherwise who is on the same pictures: embed the same "
            "folder with both"
        )
    # A's labels for both: equal labels give equal resamples, which makes the difference paired.
    return a, replace(b, embeddings=b.embeddings[order], labels=a.labels, paths=a.paths)


def differences_of(a: Verified, b: Verified) -> tuple[Difference, ...]:
    """B minus A for each compared figure; both judged with the same resamples of the people."""
    resampled = None
    if a.bootstrap is not None and b.bootstrap is not None:
        resampled = a.bootstrap.figures(), b.bootstrap.figures()
    differences = []
    for name, (title, more_is_better) in COMPARED.items():
        limits: Interval = None
        if resampled is not None and a.bootstrap is not None:
            of_a, of_b = (figures[name] for figures in resampled)
            # Equal in all resamples: an interval of 0, unless neither makes any error.
            equal = (of_a == of_b).all() and np.ptp(of_a) > 0
            people = a.bootstrap.genuine_effective
            limits = (0.0, 0.0) if equal else quantile_interval(of_b - of_a, people)
        supported = a.supports(float(name.rpartition("_")[2]) if "_at_far_" in name else 1.0)
        verdict = _verdict(limits, more_is_better, supported)
        one, other = a.figures[name], b.figures[name]
        differences.append(
            Difference(name, title, one, other, other - one, limits, supported, verdict)
        )
    return tuple(differences)


def _verdict(limits: Interval, more_is_better: bool, supported: bool) -> str:
    if not supported:
        return "too few people for a verdict"
    if limits is None:
        return "no interval, no verdict"
    low, high = limits
    if low <= 0 <= high:
        return "no difference shown"
    return f"{'B' if (low > 0) == more_is_better else 'A'} is better"
