"""Embeddings of pictures: what is judged, and how a checkpoint makes them of a folder."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from siamese.config import (
    DEMO_IMAGES,
    DEMO_PEOPLE,
    DEMO_SEED,
    DEMO_SIZE,
    EmbedSettings,
    ScoringName,
)
from siamese.crew import crew
from siamese.data.cache import PictureCache, open_cache
from siamese.data.folder import FaceFolder, scan_folder, shared_names, shorter_sides
from siamese.data.loaders import default_workers
from siamese.data.split_lists import names_of, read_again
from siamese.demo.demo_faces import write_demo_faces
from siamese.errors import UserError, first_few
from siamese.files.places import is_near
from siamese.models.checkpoint import JUDGED, newest_best, read_checkpoint
from siamese.models.embedder import EmbedderSpec
from siamese.models.embedding import EmbeddedBatch
from siamese.models.inference import Embedder
from siamese.models.loading import (
    decision_of,
    holding,
    mirrors_of,
    network_of,
    precision_of,
    scoring_of,
    spec_of,
)
from siamese.models.scoring import Scoring
from siamese.report.embedding_run import write_rows
from siamese.verification.decision import Decision


@dataclass(frozen=True)
class Embeddings:
    """Embedded pictures of some people.

    Attributes:
        embeddings: float32 (N, D).
        labels: int64 (N,).
        names: one name per label value 0 ... max; None when unknown.
        paths: one path per picture; None when unknown.
        origin: where they come from, in words.
        root: the folder that the paths are relative to; None when unknown.
        decision: threshold and calibration that were chosen for the model and its scoring; None
            when none were.
    """

    embeddings: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    names: tuple[str, ...] | None
    paths: tuple[str, ...] | None
    origin: str
    notes: tuple[str, ...] = ()
    root: Path | None = None
    decision: Decision | None = None


@dataclass(frozen=True)
class Model:
    """A checkpoint or an exported model that is ready to embed.

    Attributes:
        device: where it runs.
    """

    path: Path
    content: dict[str, Any]
    spec: EmbedderSpec
    network: nn.Module
    device: torch.device
    precision: torch.dtype

    @property
    def decision(self) -> Decision | None:
        """The threshold and calibration that were chosen for this model, if any were.

        Raises:
            UserError: they are damaged.
        """
        return decision_of(self.content, self.path)

    def scoring(self, asked: ScoringName) -> Scoring:
        """The scoring that a setting means for this model.

        Raises:
            UserError: as of :func:`siamese.models.loading.scoring_of`.
        """
        return scoring_of(self.content, self.path, asked)

    def mirrors(self, settings: EmbedSettings) -> bool:
        """Whether embeddings are averaged with those of the mirrored pictures.

        Raises:
            UserError: as of :meth:`scoring` and :attr:`decision`.
        """
        scoring = self.scoring(settings.scoring)
        return mirrors_of(self.content, self.path, scoring, settings.flip)


def checkpoint_path(settings: EmbedSettings) -> Path:
    """The checkpoint that the settings name, or the newest best one."""
    if settings.checkpoint is not None:
        given = Path(settings.checkpoint)
        return given / "best.pt" if given.is_dir() else given
    return newest_best(Path(settings.checkpoints), settings.limits)


def load_model(settings: EmbedSettings) -> Model:
    """Load the checkpoint that the settings name.

    Raises:
        UserError: unusable checkpoint, device or precision.
    """
    path = checkpoint_path(settings)
    content = read_checkpoint(path, keys=JUDGED, limits=settings.limits)
    network, device = network_of(content, path, settings.device)
    precision = precision_of(content, settings.precision, device)
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Model(path, content, spec_of(content), network, device, precision)


def embed_people(
    settings: EmbedSettings, target: str | None = None, *, rows: Path | None = None
) -> Embeddings:
    """Embed a folder, or people of the checkpoint's own split, with a checkpoint's embedder.

    Args:
        rows: see :func:`embed_folder`.

    Raises:
        UserError: unusable checkpoint or folder; no picture can be decoded; no such target.
    """
    model = load_model(settings)
    folder, notes = _people(model, settings.data, settings.part)
    if target is not None:
        find_person(target, folder.names)
    if not model.content["figures"]:
        notes.append("the checkpoint was saved at an interruption: its weights were not validated")
    part = settings.part or ("validation" if settings.data is None else None)
    whose = "" if part is None else f"{part} people of "
    origin = f"{model.path} on {whose}{folder.root}"
    return embed_folder(model, folder, settings, origin, notes, rows=rows)


def embed_folder(
    model: Model,
    folder: FaceFolder,
    settings: EmbedSettings,
    origin: str,
    notes: Sequence[str],
    *,
    rows: Path | None = None,
) -> Embeddings:
    """Embed every picture of a folder; those that cannot be decoded are left out and noted.

    Args:
        rows: write them into this .npy as they are made, instead of holding them in memory.

    Raises:
        UserError: not one picture can be decoded; the cache cannot be used.
    """
    # Where they are damaged, before the pictures take their time.
    scoring, decision = model.scoring(settings.scoring), model.decision
    embedder = _embedder(model, settings)
    uncut = _uncut(folder, embedder.crop)
    workers, cache = _reading(model, settings, folder, embedder, progress=True)
    if rows is None:
        vectors, kept, failed = embedder.embed_listed(folder, workers=workers, cache=cache)
    else:
        vectors, kept, failed = write_rows(embedder, folder, rows, workers=workers, cache=cache)
    if not len(vectors):
        raise UserError(
            f"{folder.root}: not one of its {len(folder.paths)} pictures can be decoded"
        )
    all_notes = [*notes, *([] if uncut is None else [uncut])]
    if failed:
        all_notes.append(
            f"{len(failed)} pictures cannot be decoded and are left out: "
            f"{first_few([path for path, _ in failed])}"
        )
    decision, more = _holding(decision, scoring, flip=embedder.flip)
    all_notes += more
    if embedder.flip and settings.flip == "auto" and decision is None:
        all_notes.append(
            "embeddings are averaged with those of the mirrored pictures, which training's own "
            "figures are not (`flip` false is as they are)"
        )
    if scoring.map is not None:
        origin = f"{origin}, scored by {scoring.title}"
    return Embeddings(
        vectors,
        np.asarray(folder.labels, np.int64)[kept],
        folder.names,
        tuple(folder.paths[i] for i in kept),
        origin,
        tuple(all_notes),
        folder.root,
        decision,
    )


def _holding(
    decision: Decision | None, scoring: Scoring, *, flip: bool
) -> tuple[Decision | None, list[str]]:
    """The decision, where it holds for that scoring, and what must be said about both."""
    notes = []
    held = holding(decision, scoring)
    if held is not None and held.flip != flip:
        notes.append(
            f"the checkpoint's threshold was chosen with `flip` {str(held.flip).lower()}: "
            "the scores here differ"
        )
    if decision is not None and held is None:
        same = decision.scoring == scoring.name
        notes.append(
            f"the checkpoint's threshold was chosen with {'another' if same else '`scoring`'} "
            f"{decision.scoring} and does not hold here, so it is left out"
        )
    if scoring.map is not None and scoring.map.fitted.flip != flip:
        notes.append(
            f"the {scoring.title} was fitted with `flip` {str(scoring.map.fitted.flip).lower()}: "
            "it suits such embeddings best"
        )
    return held, notes


def _reading(
    model: Model, settings: EmbedSettings, folder: FaceFolder, embedder: Embedder, *, progress: bool
) -> tuple[int, PictureCache | None]:
    """Loader processes, and the cache where one is asked for."""
    workers, cache = settings.workers, None
    if settings.cache is not None:
        cache = open_cache(
            Path(settings.cache),
            [folder],
            embedder.prepare,
            embedder.prepare.decode_size,
            workers=workers,
            progress=progress,
        )
    return default_workers(model.device.type) if workers is None else workers, cache


class _CrewEmbedder(Embedder):
    """Whose batches the processes of :mod:`siamese.crew` share: the same as one would make."""

    settings: EmbedSettings

    def embed_in_batches(
        self, folder: FaceFolder, *, first: int = 0, **options: Any
    ) -> Iterator[EmbeddedBatch]:
        """See :class:`Embedder`."""
        together = crew()
        part = 0, together.world
        mine = super().embed_in_batches(folder, first=first, part=part, **options)
        for batches in together.share(mine, _other_batches, self.settings, folder, first):
            yield from batches


def _other_batches(
    rank: int, world: int, settings: EmbedSettings, folder: FaceFolder, first: int
) -> Iterator[EmbeddedBatch]:
    """A helper's share."""
    model = load_model(settings)
    embedder = _embedder(model, settings)
    workers, cache = _reading(model, settings, folder, embedder, progress=False)
    part = rank, world
    yield from Embedder.embed_in_batches(
        embedder, folder, first=first, workers=workers, cache=cache, part=part
    )


def _embedder(model: Model, settings: EmbedSettings) -> Embedder:
    embedder = _CrewEmbedder(
        model.network,
        model.spec,
        device=model.device,
        precision=model.precision,
        crop=settings.crop,
        flip=model.mirrors(settings),
        batch=settings.batch,
        scoring=model.scoring(settings.scoring),
    )
    # Helpers read the file again: they are told what was found in it now.
    embedder.settings = replace(
        settings, checkpoint=str(model.path), scoring=embedder.scoring.name, flip=embedder.flip
    )
    return embedder


def _uncut(folder: FaceFolder, crop: float | None) -> str | None:
    """A line where pictures are no larger than the centre that was to be cut out of them."""
    if crop is None or crop < 1:  # a share always cuts
        return None
    sides = [side for side in shorter_sides(folder.root, folder.paths) if side is not None]
    small = [side for side in sides if side < crop]
    if not small:
        return None
    who = (
        f"none of the {len(sides)} pictures is"
        if len(small) == len(sides)
        else (f"{len(small)} of {len(sides)} pictures are not")
    )
    return (
        f"`crop` {crop:g}: {who} as large (shorter sides from {min(small)} to {max(small)} pixels):"
        " their whole centre squares are taken, nothing smaller"
    )


@contextmanager
def naming(people: Embeddings) -> Iterator[None]:
    """Errors inside say which embeddings they are about."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{people.origin}: {error}") from None


def find_person(name: str, names: Sequence[str]) -> int:
    """The label of a person's name, in any Unicode form.

    Raises:
        UserError: nobody has that name; names the nearest.
    """
    known = {unicodedata.normalize("NFC", n): i for i, n in enumerate(names)}
    wanted = unicodedata.normalize("NFC", name)
    if wanted in known:
        return known[wanted]
    near = difflib.get_close_matches(wanted, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"there are {first_few(list(known))}"
    raise UserError(f"`target` {name}: nobody of that name among {len(known)} people; {hint}")


def _people(model: Model, data: str | None, part: str | None) -> tuple[FaceFolder, list[str]]:
    """The folder to embed, and what must be said about it."""
    split = model.content["split"]
    if data is not None and part is None:
        folder = scan_folder(Path(data))
        notes = [folder.summary()] if folder.left_out else []
        if not split:
            notes.append(
                f"{model.path} does not say who trained it: figures on people who did would flatter"
            )
        seen = shared_names(folder.names, names_of(split["train"])) if split else []
        if seen:
            notes.append(
                f"{len(seen)} of the {len(folder.names)} people in {folder.root} have names that "
                f"were trained on ({first_few(seen)}): figures on them flatter"
            )
        return folder, notes
    part = part or "validation"
    notes = ["these people trained the network: figures on them flatter"]
    return own_people(model, part, data), notes if part == "train" else []


def own_people(model: Model, part_name: str, data: str | None) -> FaceFolder:
    """People of one part of the checkpoint's own split.

    Args:
        data: where the folder is now; None: where it was.

    Raises:
        UserError: no such part; the folder or some of the people are not there.
    """
    path, content = model.path, model.content
    if not content["split"]:
        raise UserError(
            f"{path}: it was exported without the people whom it was trained and validated on; give"
            " a folder with `data`, or export it with `people` true"
        )
    if part_name not in content["split"]:
        raise UserError(f"{path}: it has no {part_name} people; give a folder with `data`")
    part = content["split"][part_name]
    root = Path(part["folder"] if data is None else data)
    drawn = content["settings"].get("data") is None and data is None
    # A checkpoint may come from anywhere: not every place that it names is drawn into.
    if drawn and not root.exists() and is_near(root.parent, path):
        write_demo_faces(root, DEMO_PEOPLE, DEMO_IMAGES, DEMO_SIZE, DEMO_SEED)
    if not root.exists():
        raise UserError(
            f"{root}: the folder that {path} was trained on is not here; give its new place with "
            f"`data` DIR `part` {part_name}, or other people with `data` DIR"
        )
    if "listed" in part:
        folder = read_again(root, {part_name: part["listed"]}, str(path))[part_name]
    else:
        folder = scan_folder(root)
    missing = sorted(set(part["identities"]) - set(folder.names))
    if missing:
        raise UserError(
            f"{root}: {len(missing)} {part_name} people of {path} are not in it "
            f"({first_few(missing)}); give the folder that has them with `data`"
        )
    return folder.only(part["identities"])
