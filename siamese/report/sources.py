"""Where judged embeddings come from: a checkpoint and a folder, or a file of any system."""

from __future__ import annotations

import difflib
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    FitName,
)
from siamese.data.batches import Batch, default_workers, evaluation_loader
from siamese.data.cache import open_cache
from siamese.data.demo import write_demo_faces
from siamese.data.folder import FaceFolder, scan_folder, shared_names
from siamese.data.split_lists import names_of, read_again
from siamese.data.transforms import Preprocess
from siamese.errors import UserError, first_few
from siamese.files.places import is_near, is_regular
from siamese.files.writing import replacing
from siamese.models.checkpoint import newest_best, read_checkpoint
from siamese.models.device import choose_device, choose_precision
from siamese.models.embedder import EmbedderSpec, SiameseEmbedder
from siamese.models.embedding import embed
from siamese.models.loading import embedder_of, spec_of
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
        notes: what the reader of the figures must know.
        root: the folder that the paths are relative to; None when unknown.
        decision: threshold and calibration that were chosen for the model; None when none were.
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
    """A checkpoint that is ready to embed.

    Attributes:
        path: the checkpoint's file.
        content: what is in it.
        spec: the embedder's description.
        network: the embedder, in eval mode, on the device.
        device: where it runs.
        precision: arithmetic of the network.
    """

    path: Path
    content: dict[str, Any]
    spec: EmbedderSpec
    network: SiameseEmbedder
    device: torch.device
    precision: torch.dtype

    @property
    def decision(self) -> Decision | None:
        """The threshold and calibration that were chosen for this model, if any were.

        Raises:
            UserError: they are damaged.
        """
        if "decision" not in self.content:
            return None
        try:
            return Decision.from_dict(self.content["decision"])
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"{self.path}: is damaged, its threshold cannot be used; choose one anew with "
                "siamese-eval threshold"
            ) from None


def checkpoint_path(settings: EmbedSettings) -> Path:
    """The checkpoint that the settings name, or the newest best one."""
    if settings.checkpoint is not None:
        given = Path(settings.checkpoint)
        return given / "best.pt" if given.is_dir() else given
    return newest_best(Path(settings.checkpoints))


def load_model(settings: EmbedSettings) -> Model:
    """Load the checkpoint that the settings name.

    Raises:
        UserError: unusable checkpoint, device or precision.
    """
    path = checkpoint_path(settings)
    content = read_checkpoint(path)
    device = choose_device(settings.device)
    trained = content["settings"].get("trainer", {}).get("precision")
    in_fp32 = settings.precision == "auto" and trained == "fp32"  # as it was validated
    precision = choose_precision("fp32" if in_fp32 else settings.precision, device)
    spec, network = spec_of(content, path), embedder_of(content, path)
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Model(path, content, spec, network, device, precision)


def embed_people(settings: EmbedSettings, target: str | None = None) -> Embeddings:
    """Embed a folder, or people of the checkpoint's own split, with a checkpoint's embedder.

    Args:
        settings: which checkpoint and which people.
        target: a person who must be among them; looked up before anything is embedded.

    Raises:
        UserError: unusable checkpoint or folder; no picture can be decoded; no such target.
    """
    model = load_model(settings)
    folder, notes = _people(settings, model)
    if target is not None:
        find_person(target, folder.names)
    if not model.content["figures"]:
        notes.append("the checkpoint was saved at an interruption: its weights were not validated")
    part = settings.part or ("validation" if settings.data is None else None)
    own = "" if part is None else f"{part} people of "
    return embed_folder(model, folder, settings, f"{model.path} on {own}{folder.root}", notes)


def embed_folder(
    model: Model, folder: FaceFolder, settings: EmbedSettings, origin: str, notes: Sequence[str]
) -> Embeddings:
    """Embed every picture of a folder; those that cannot be decoded are left out and noted.

    Raises:
        UserError: not one picture can be decoded; the cache cannot be used.
    """
    decision = model.decision  # where it is damaged, before the pictures take their time
    workers = default_workers(model.device.type) if settings.workers is None else settings.workers
    fit: FitName = "squash" if model.spec.fit == "squash" else "crop"
    prepare = Preprocess(model.spec.size, fit, settings.crop)
    size = model.spec.size if settings.crop is None else None
    cache = None
    if settings.cache is not None:
        place = Path(settings.cache)
        cache = open_cache(place, [folder], prepare, size, workers=settings.workers)
    loader = evaluation_loader(
        folder,
        prepare,
        size,
        batch_size=settings.batch,
        workers=workers,
        pin_memory=model.device.type == "cuda",
        cache=cache,
    )
    failed: list[str] = []

    def watched() -> Iterator[Batch]:
        with tqdm(
            total=len(folder.paths), desc="embedding", unit="img", leave=False, disable=None
        ) as bar:
            for batch in loader:
                failed.extend(path for path, _ in batch.failed)
                yield batch
                bar.update(len(batch.images) + len(batch.failed))

    vectors, positions = embed(
        model.network,
        watched(),
        device=model.device,
        precision=model.precision,
        flip=settings.flip,
    )
    if not len(vectors):
        raise UserError(
            f"{folder.root}: not one of its {len(folder.paths)} pictures can be decoded"
        )
    told = list(notes)
    if failed:
        told.append(
            f"{len(failed)} pictures cannot be decoded and are left out: {first_few(failed)}"
        )
    kept = positions.numpy()
    if decision is not None and decision.flip != settings.flip:
        told.append(
            f"the checkpoint's threshold was chosen with --flip {str(decision.flip).lower()}: "
            "scores differ without it"
        )
    return Embeddings(
        vectors.numpy(),
        np.asarray(folder.labels, np.int64)[kept],
        folder.names,
        tuple(folder.paths[i] for i in kept),
        origin,
        tuple(told),
        folder.root,
        decision,
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
    raise UserError(f"--target {name}: nobody of that name among {len(known)} people; {hint}")


def _people(settings: EmbedSettings, model: Model) -> tuple[FaceFolder, list[str]]:
    """The folder to embed, and what must be said about it."""
    split = model.content["split"]
    if settings.data is not None and settings.part is None:
        folder = scan_folder(Path(settings.data))
        notes = [folder.summary()] if folder.left_out else []
        seen = shared_names(folder.names, names_of(split["train"]))
        if seen:
            notes.append(
                f"{len(seen)} of the {len(folder.names)} people in {folder.root} have names that "
                f"were trained on ({first_few(seen)}): figures on them flatter"
            )
        return folder, notes
    part = settings.part or "validation"
    notes = ["these people trained the network: figures on them flatter"]
    return own_people(model, part, settings.data), notes if part == "train" else []


def own_people(model: Model, part_name: str, data: str | None) -> FaceFolder:
    """People of one part of the checkpoint's own split.

    Args:
        model: the checkpoint.
        part_name: ``train``, ``validation`` or ``test``.
        data: where the folder is now; None: where it was.

    Raises:
        UserError: no such part; the folder or some of the people are not there.
    """
    path, content = model.path, model.content
    if part_name not in content["split"]:
        raise UserError(f"{path}: it has no {part_name} people; give a folder with --data")
    part = content["split"][part_name]
    root = Path(part["folder"] if data is None else data)
    drawn = content["settings"].get("data") is None and data is None
    # A checkpoint may come from anywhere: not every place that it names is drawn into.
    if drawn and not root.exists() and is_near(root.parent, path):
        write_demo_faces(root, DEMO_PEOPLE, DEMO_IMAGES, DEMO_SIZE, DEMO_SEED)
    if not root.exists():
        raise UserError(
            f"{root}: the folder that {path} was trained on is not here; give its new place with "
            f"--data DIR --part {part_name}, or other people with --data DIR"
        )
    if "listed" in part:
        folder = read_again(root, {part_name: part["listed"]}, str(path))[part_name]
    else:
        folder = scan_folder(root)
    missing = sorted(set(part["identities"]) - set(folder.names))
    if missing:
        raise UserError(
            f"{root}: {len(missing)} {part_name} people of {path} are not in it "
            f"({first_few(missing)}); give the folder that has them with --data"
        )
    return folder.only(part["identities"])


def save_embeddings(path: Path, people: Embeddings) -> None:
    """Write an .npz that :func:`load_embeddings` reads, whole or not at all."""
    arrays: dict[str, Any] = {"embeddings": people.embeddings, "labels": people.labels}
    if people.names is not None:
        arrays["names"] = np.asarray(people.names, dtype=np.str_)
    if people.paths is not None:
        arrays["paths"] = np.asarray(people.paths, dtype=np.str_)
    if people.root is not None:
        arrays["root"] = np.asarray(str(people.root.resolve()), dtype=np.str_)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def load_embeddings(path: Path) -> Embeddings:
    """Read an .npz with ``embeddings`` (N, D) and ``labels`` (N,).

    Optional are ``names`` (one per label value), ``paths`` (one per image) and ``root`` (text, the
    folder of the paths, for pictures in the report).

    Raises:
        UserError: missing or damaged file, pickled content, missing or misshapen arrays.
    """
    if not is_regular(path):
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
    if arrays["embeddings"].ndim != 2:
        shape = arrays["embeddings"].shape
        raise UserError(f"{path}: embeddings must be numbers of shape (N, D), not {shape}")
    for key in ("labels", "names", "paths"):
        if key in arrays and arrays[key].ndim != 1:
            raise UserError(f"{path}: {key} must have shape (N,), not {arrays[key].shape}")
    names, paths = _texts(arrays.get("names")), _texts(arrays.get("paths"))
    labels, images = arrays["labels"], len(arrays["embeddings"])
    if len(labels) != images:
        raise UserError(
            f"{path}: {len(labels)} labels for {images} embeddings: one per image is needed"
        )
    named = names is not None and np.issubdtype(labels.dtype, np.integer) and labels.size
    if named and not 0 <= labels.min() <= labels.max() < len(names or ()):
        raise UserError(
            f"{path}: labels run from {labels.min()} to {labels.max()}, but it has "
            f"{len(names or ())} names: one per label value is needed"
        )
    if paths is not None and len(paths) != len(labels):
        raise UserError(f"{path}: {len(paths)} paths for {len(labels)} labels")
    if paths is not None and len(set(paths)) < len(paths):
        twice = next(name for name, count in Counter(paths).items() if count > 1)
        raise UserError(f"{path}: the path {twice} is there twice; embed every picture once")
    text = arrays.get("root")
    root = Path(str(text)) if text is not None and text.shape == () else None
    return Embeddings(arrays["embeddings"], labels, names, paths, str(path), (), root)


def _texts(array: npt.NDArray[Any] | None) -> tuple[str, ...] | None:
    if array is None:
        return None
    if array.dtype.kind == "S":  # as other systems write them
        array = np.char.decode(array, "utf-8", "backslashreplace")
    return tuple(str(text) for text in array)
