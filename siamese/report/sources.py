"""Where judged embeddings come from: a checkpoint and a folder, or a file of any system."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from siamese.config import (
    DEMO_IMAGES,
    DEMO_PEOPLE,
    DEMO_SEED,
    DEMO_SIZE,
    EmbedSettings,
)
from siamese.data.batches import Batch, default_workers, evaluation_loader
from siamese.data.demo import write_demo_faces
from siamese.data.folder import FaceFolder, scan_folder
from siamese.data.transforms import Preprocess
from siamese.errors import UserError
from siamese.models.checkpoint import newest_best, read_checkpoint
from siamese.models.device import choose_device, choose_precision
from siamese.models.embedding import embed
from siamese.models.loading import embedder_of, spec_of


@dataclass(frozen=True)
class Embeddings:
    """Embedded pictures of some people.

    Attributes:
        embeddings: float32 (N, D).
        labels: int64 (N,).
        names: one name per label value 0 ... max; None when unknown.
        paths: one path per picture; None when unknown.
        origin: where they come from, in words.
        notes: what the reader of the figures must know.
    """

    embeddings: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    names: tuple[str, ...] | None
    paths: tuple[str, ...] | None
    origin: str
    notes: tuple[str, ...] = ()


def checkpoint_path(settings: EmbedSettings) -> Path:
    """The checkpoint that the settings name, or the newest best one."""
    if settings.checkpoint is not None:
        given = Path(settings.checkpoint)
        return given / "best.pt" if given.is_dir() else given
    return newest_best(Path(settings.checkpoints))


def embed_people(settings: EmbedSettings) -> Embeddings:
    """Embed a folder, or people of the checkpoint's own split, with a checkpoint's embedder.

    Raises:
        UserError: unusable checkpoint or folder; no picture can be decoded.
    """
    path = checkpoint_path(settings)
    content = read_checkpoint(path)
    device = choose_device(settings.device)
    trained = content["settings"].get("trainer", {}).get("precision")
    in_fp32 = settings.precision == "auto" and trained == "fp32"  # as it was validated
    precision = choose_precision("fp32" if in_fp32 else settings.precision, device)
    folder, notes = _people(settings, content, path)
    spec = spec_of(content, path)
    model = embedder_of(content, path)
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    workers = default_workers(device.type) if settings.workers is None else settings.workers
    loader = evaluation_loader(
        folder,
        Preprocess(spec.size, "squash" if spec.fit == "squash" else "crop"),
        spec.size,
        batch_size=settings.batch,
        workers=workers,
        pin_memory=device.type == "cuda",
    )
    failed: list[tuple[str, str]] = []

    def watched() -> Iterator[Batch]:
        with tqdm(
            total=len(folder.paths), desc="embedding", unit="img", leave=False, disable=None
        ) as bar:
            for batch in loader:
                failed.extend(batch.failed)
                yield batch
                bar.update(len(batch.images) + len(batch.failed))

    vectors, positions = embed(
        model, watched(), device=device, precision=precision, flip=settings.flip
    )
    if not len(vectors):
        raise UserError(
            f"{folder.root}: not one of its {len(folder.paths)} pictures can be decoded"
        )
    if failed:
        names = ", ".join(name for name, _ in failed[:3]) + (", ..." if len(failed) > 3 else "")
        notes.append(f"{len(failed)} pictures cannot be decoded and are left out: {names}")
    if not content["figures"]:
        notes.append("the checkpoint was saved at an interruption: its weights were not validated")
    kept = positions.numpy()
    part = settings.part or ("validation" if settings.data is None else None)
    own = "" if part is None else f"{part} people of "
    return Embeddings(
        vectors.numpy(),
        np.asarray(folder.labels, np.int64)[kept],
        folder.names,
        tuple(folder.paths[i] for i in kept),
        f"{path} on {own}{folder.root}",
        tuple(notes),
    )


def _people(
    settings: EmbedSettings, content: dict[str, Any], path: Path
) -> tuple[FaceFolder, list[str]]:
    """The folder to embed, and what must be said about it."""
    split = content["split"]
    part_name = settings.part or "validation"
    if settings.data is not None and settings.part is None:
        folder = scan_folder(Path(settings.data))
        notes = [folder.summary()] if folder.left_out else []
        trained = {unicodedata.normalize("NFC", name) for name in split["train"]["identities"]}
        seen = [n for n in folder.names if unicodedata.normalize("NFC", n) in trained]
        if seen:
            some = ", ".join(seen[:3]) + (", ..." if len(seen) > 3 else "")
            notes.append(
                f"{len(seen)} of these {len(folder.names)} people have names that were trained on "
                f"({some}): figures on them flatter"
            )
        return folder, notes
    if part_name not in split:
        raise UserError(f"{path}: it has no {part_name} people; give a folder with --data")
    part = split[part_name]
    root = Path(part["folder"] if settings.data is None else settings.data)
    drawn = content["settings"].get("data") is None and settings.data is None
    if drawn and not root.exists():
        write_demo_faces(root, DEMO_PEOPLE, DEMO_IMAGES, DEMO_SIZE, DEMO_SEED)
    if not root.exists():
        raise UserError(
            f"{root}: the folder that {path} was trained on is not here; give its new place with "
            f"--data DIR --part {part_name}, or other people with --data DIR"
        )
    folder = scan_folder(root)
    missing = sorted(set(part["identities"]) - set(folder.names))
    if missing:
        raise UserError(
            f"{root}: {len(missing)} {part_name} people of {path} are not in it "
            f"({', '.join(missing[:3])}); give the folder that has them with --data"
        )
    notes = ["these people trained the network: figures on them flatter"]
    return folder.only(part["identities"]), notes if part_name == "train" else []


def save_embeddings(path: Path, people: Embeddings) -> None:
    """Write ``embeddings``, ``labels``, ``names`` and ``paths`` to an .npz, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    arrays: dict[str, Any] = {"embeddings": people.embeddings, "labels": people.labels}
    if people.names is not None:
        arrays["names"] = np.asarray(people.names, dtype=np.str_)
    if people.paths is not None:
        arrays["paths"] = np.asarray(people.paths, dtype=np.str_)
    try:
        with open(temporary, "wb") as file:
            np.savez(file, **arrays)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_embeddings(path: Path) -> Embeddings:
    """Read an .npz with ``embeddings`` (N, D) and ``labels`` (N,); ``names``, ``paths`` optional.

    Raises:
        UserError: missing or damaged file, pickled content, missing or misshapen arrays.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except Exception:  # truncated zip, refused pickle, a single array: all mean the same here
        raise UserError(
            f"{path}: is not a readable .npz of plain arrays (damaged, or pickled objects inside)"
        ) from None
    for key in ("embeddings", "labels"):
        if key not in arrays:
            raise UserError(f"{path}: has no array {key!r}; needed: embeddings (N, D), labels (N,)")
    for key in ("labels", "names", "paths"):
        if key in arrays and arrays[key].ndim != 1:
            raise UserError(f"{path}: {key} must have shape (N,), not {arrays[key].shape}")
    names = tuple(str(name) for name in arrays["names"]) if "names" in arrays else None
    paths = tuple(str(name) for name in arrays["paths"]) if "paths" in arrays else None
    labels = arrays["labels"]
    named = names is not None and np.issubdtype(labels.dtype, np.integer) and labels.size
    if named and not 0 <= labels.min() <= labels.max() < len(names or ()):
        raise UserError(
            f"{path}: labels run from {labels.min()} to {labels.max()}, but it has "
            f"{len(names or ())} names: one per label value is needed"
        )
    if paths is not None and len(paths) != len(labels):
        raise UserError(f"{path}: {len(paths)} paths for {len(labels)} labels")
    return Embeddings(arrays["embeddings"], labels, names, paths, str(path))
