"""The report of 1:N identification: closed set, open set, retrieval."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from siamese.config import IdentifySettings
from siamese.drawing.figure import save_figure
from siamese.report.embedding_sources import naming
from siamese.report.verification_plots import cmc_figure, open_set_figure, too_few_enrolled
from siamese.report.verification_report import (
    judged_people,
    output_folder,
    warnings_about,
    write_results,
)
from siamese.verification.identification import (
    Identification,
    Retrieval,
    identify,
    retrieval,
)
from siamese.verification.sample_warnings import label_warnings

RANKS = (1, 5, 10)
FPIRS = (0.01, 0.1)


@dataclass(frozen=True)
class Identified:
    """What searches in galleries gave, and where it was written.

    Attributes:
        galleries: one result per number of enrolled pictures, from 1.
        origin: what was judged, in words.
    """

    galleries: tuple[Identification, ...]
    retrieval: Retrieval
    origin: str
    notes: tuple[str, ...]
    files: tuple[Path, ...]


def judge_identification(settings: IdentifySettings) -> Identified:
    """Judge galleries of 1 to ``settings.gallery`` pictures; write pictures and JSON.

    Raises:
        UserError: unusable input; nobody has enough pictures.
    """
    people = judged_people(settings)
    with naming(people):
        galleries = tuple(  # the largest first: people with too few pictures are noticed at once
            identify(
                people.embeddings,
                people.labels,
                images_per_person=images,
                fusion=settings.fusion,
                seed=settings.seed,
                draws=settings.draws,
                progress=True,
            )
            for images in range(settings.gallery, 0, -1)
        )[::-1]
        ranked = retrieval(people.embeddings, people.labels, progress=True)
    out = output_folder(settings)
    last = galleries[-1]
    pictures = "1 picture" if last.images_per_person == 1 else f"{last.images_per_person} pictures"
    title = people.origin, f"{last.people} people enrolled, {pictures} each"
    files = save_figure(cmc_figure([("", last.cmc)], title), out / "cmc")
    few = too_few_enrolled(last.people)
    figure = open_set_figure([("", last.fpir, last.fnir)], title, few=few)
    files += save_figure(figure, out / "open_set")
    notes = (
        *people.notes,
        *([f"CMC and open set: {few}"] if few else ()),
        *warnings_about(people),
        *label_warnings(people.labels),
    )
    content = {"galleries": [identification_json(one) for one in galleries], **asdict(ranked)}
    path = out / "identify.json"
    files.append(write_results(path, content, people.origin, notes, asdict(settings)))
    return Identified(galleries, ranked, people.origin, notes, tuple(files))


def rank_rate(searches: Identification, rank: int) -> float:
    """Share of probes whose own person is among the best ``rank``, in [0, 1]."""
    return float(searches.cmc[min(rank, searches.people) - 1])


def identification_json(searches: Identification) -> dict[str, object]:
    """Figures and curves under their plain names."""
    return {
        "images_per_person": searches.images_per_person,
        "fusion": searches.fusion,
        "people": searches.people,
        "people_left_out": searches.people_left_out,
        "probes": searches.probes,
        "draws": searches.draws,
        **{f"rank_{rank}": rank_rate(searches, rank) for rank in RANKS},
        **{f"fnir_at_fpir_{rate:g}": searches.fnir_at(rate) for rate in FPIRS},
        "cmc": searches.cmc.tolist(),
        "open_set": {
            "threshold": searches.threshold.tolist(),
            "fpir": searches.fpir.tolist(),
            "fnir": searches.fnir.tolist(),
        },
    }
