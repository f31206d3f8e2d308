"""Judge embeddings: figures, curve, picture and JSON of a 1:1 verification."""

from __future__ import annotations

import difflib
import json
import time
import unicodedata
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from siamese.config import EmbedSettings, JudgeSettings
from siamese.errors import UserError
from siamese.models.checkpoint import package_versions
from siamese.report.figures import pr_figure, roc_figure, save_figure
from siamese.report.sources import (
    Embeddings,
    checkpoint_path,
    embed_people,
    load_embeddings,
    save_embeddings,
)
from siamese.verification.figures import curve, summarise
from siamese.verification.scores import pair_scores, target_scores

_JSON_POINTS = 500


@dataclass(frozen=True)
class Judgement:
    """What was found, and where it was written.

    Attributes:
        figures: figures by their plain names; see :func:`siamese.verification.figures.summarise`.
        origin: what was judged, in words.
        notes: what the reader of the figures must know.
        files: the files written.
    """

    figures: dict[str, float]
    origin: str
    notes: tuple[str, ...]
    files: tuple[Path, ...]


def judge(settings: JudgeSettings, kind: Literal["roc", "pr"]) -> Judgement:
    """Verify all pairs (or one target's) and write ``<kind>.png``, ``.svg`` and ``.json``.

    Raises:
        UserError: unusable input; see the sources of embeddings and the scores.
    """
    if settings.embeddings is None:
        people = embed_people(settings)
    elif settings.checkpoint is not None or settings.data is not None:
        raise UserError("--embeddings: give it alone, without --checkpoint and --data")
    else:
        people = load_embeddings(Path(settings.embeddings))
    if settings.target is None:
        scores = pair_scores(people.embeddings, people.labels)
        title = f"{scores.identities} people, all pairs"
    else:
        label = _target_label(people, settings.target)
        scores = target_scores(people.embeddings, people.labels, label)
        title = f"{settings.target} against {scores.identities - 1} others"
    figures = summarise(scores)
    out = Path(settings.out) if settings.out is not None else _default_folder(settings)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be made ({error.strerror})") from None
    draw = roc_figure if kind == "roc" else pr_figure
    files = save_figure(draw(curve(scores), figures, title), out / kind)
    table = out / f"{kind}.json"
    table.write_text(_json(figures, scores, people, settings), encoding="utf-8")
    return Judgement(figures, people.origin, people.notes, (*files, table))


def write_embeddings(settings: EmbedSettings) -> tuple[Path, Embeddings]:
    """Embed and write the .npz; returns its path and what is in it."""
    out = Path(settings.out) if settings.out else _default_folder(settings) / "embeddings.npz"
    if out.suffix != ".npz":
        raise UserError(f"--out {out}: the file's name must end in .npz")
    people = embed_people(settings)
    save_embeddings(out, people)
    return out, people


def _json(
    figures: dict[str, float], scores: Any, people: Embeddings, settings: JudgeSettings
) -> str:
    thin = curve(scores, _JSON_POINTS)
    content = {
        **figures,
        "supported": {
            name: rate >= figures["lowest_supported_fmr"]
            for name, rate in (("tar_at_far_1e-2", 1e-2), ("tar_at_far_1e-3", 1e-3))
        },
        "curve": {
            "threshold": thin.threshold.tolist(),
            "fmr": thin.fmr.tolist(),
            "fnmr": thin.fnmr.tolist(),
            "recall": thin.recall.tolist(),
            "precision": thin.precision.tolist(),
        },
        "origin": people.origin,
        "notes": list(people.notes),
        "settings": asdict(settings),
        "versions": package_versions(),
        "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    return json.dumps(content, indent=1, allow_nan=False)


def _target_label(people: Embeddings, target: str) -> int:
    if people.names is None:
        known = {str(label): int(label) for label in np.unique(people.labels)}
    else:
        known = {unicodedata.normalize("NFC", n): i for i, n in enumerate(people.names)}
    wanted = unicodedata.normalize("NFC", target)
    if wanted in known:
        return known[wanted]
    near = difflib.get_close_matches(wanted, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(list(known)[:5])}, ..."
    raise UserError(f"--target {target}: nobody of that name among {len(known)} people; {hint}")


def _default_folder(settings: EmbedSettings) -> Path:
    """``runs/<run>/eval-<people>``, or a folder beside an embeddings file; a target has its own."""
    target = settings.target if isinstance(settings, JudgeSettings) else None
    ending = "" if target is None else f"-{target.replace('/', '_')}"
    if isinstance(settings, JudgeSettings) and settings.embeddings is not None:
        file = Path(settings.embeddings)
        return file.with_name(f"{file.stem}-eval{ending}")
    part = settings.part or "validation"
    people = part if settings.data is None else Path(settings.data).resolve().name
    if settings.data is not None and settings.part is not None:
        people += f"-{part}"
    run = checkpoint_path(settings).resolve().parent.name
    return Path(settings.runs) / run / f"eval-{people}{ending}"
