"""The embedder for use: a trained network with the preprocessing that it was trained with."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from tqdm import tqdm

from siamese.config import FitName, PrecisionName, ScoringName
from siamese.data.decode import DecodeError
from siamese.data.folder import FaceFolder, LeftOut, check_headers, require_folder, scan_folder
from siamese.data.in_memory import Picture, rgb_pictures
from siamese.data.labelled_pictures import PictureReader
from siamese.data.loaders import evaluation_loader
from siamese.data.transforms import Preprocess
from siamese.errors import UserError
from siamese.files.places import is_regular
from siamese.models.checkpoint import JUDGED, find_best, read_checkpoint
from siamese.models.embedder import EmbedderSpec
from siamese.models.embedding import (
    BatchEmbedding,
    EmbeddedBatch,
    PictureBatch,
    embed,
    pictures_together,
)
from siamese.models.fingerprint import fingerprint as fingerprint_of
from siamese.models.folding import folded
from siamese.models.loading import (
    averages_itself,
    decision_of,
    holding,
    mirrors_of,
    network_of,
    precision_of,
    scoring_of,
    spec_of,
)
from siamese.models.onnx_network import OnnxNetwork
from siamese.models.scoring import Scoring
from siamese.verification.calibration import require_prior
from siamese.verification.decision import Decision
from siamese.verification.scores import level_scores, prepare

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Embedded:
    """The embedded pictures of a folder.

    Attributes:
        vectors: embeddings, float32 (N, D), not normalised.
        labels: int64 (N,), who is on each picture: a position in ``names``; None for a folder that
            holds pictures directly.
        names: the people, in order.
        paths: one per picture, relative to ``root``.
        root: the folder.
        left_out: what else the folder holds, with the reason why it is not embedded.
    """

    vectors: Vectors
    labels: npt.NDArray[np.int64] | None
    names: tuple[str, ...]
    paths: tuple[str, ...]
    root: Path
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class Verification:
    """Whether two pictures show one person.

    Attributes:
        score: cosine similarity of their embeddings, in [-1, 1].
        threshold: from which score on they count as one person; None where none was chosen.
        same: whether the score reaches it; None where none was chosen.
        probability: that they show one person, in [0, 1], at the prior; None where the scores were
            not calibrated.
        prior: the probability before the pictures were compared.
        target_fmr: the false-match rate that the threshold was chosen for.
        threshold_from: whom the threshold was chosen on, in words.
        fmr: the false-match rate on them.
        fmr_interval: its 95 % interval; None where none was computed.
        chosen_at: when it was chosen, ISO 8601 in UTC; None where older versions chose it.
    """

    score: float
    threshold: float | None
    same: bool | None
    probability: float | None
    prior: float
    target_fmr: float | None = None
    threshold_from: str | None = None
    fmr: float | None = None
    fmr_interval: tuple[float, float] | None = None
    chosen_at: str | None = None


@dataclass
class _Batch:
    """See :class:`siamese.models.embedding.PictureBatch`."""

    images: torch.Tensor
    indices: torch.Tensor


class Embedder:
    """A network in eval mode that takes pictures of any kind and size.

    Size, fit, mean and standard deviation are those that it was trained with. What it gives for a
    folder is what ``siamese-eval embed`` gives, bit for bit where one thread sums as several do (as
    on the two cores where this is tested). The last bits of a float32 depend on how many pictures
    go through the network together: the same pictures one by one or in another order give vectors
    that are equal to about a millionth.

    Attributes:
        network: takes prepared pictures only; it refuses those of another size.
        spec: what it is and what it is fed with.
        device: where it runs.
        precision: arithmetic of the network.
        crop: the centre square that is taken first, see :class:`Preprocess`; None: the whole
            picture.
        flip: whether each embedding is averaged with that of the mirrored picture.
        batch: pictures at a time, on a CPU fewer than were asked for where they are large.
        decision: the threshold and calibration that were chosen for it and its scoring; None where
            none were.
        scoring: what is made of an embedding before its cosine is taken, or nothing.
        origin: the file that it was loaded from, absolute; empty where there is none.
    """

    def __init__(
        self,
        network: nn.Module,
        spec: EmbedderSpec,
        *,
        device: torch.device,
        precision: torch.dtype = torch.float32,
        crop: float | Literal["whole"] | None = None,
        flip: bool = False,
        batch: int = 128,
        decision: Decision | None = None,
        scoring: Scoring | None = None,
        origin: str = "",
    ):
        if batch < 1:
            raise UserError(f"`batch` {batch}: must be at least 1")
        if crop is None or crop == "whole":
            crop = spec.crop if crop is None else None
        elif isinstance(crop, str) or not (
            0 < crop < 1 or (crop >= 1 and float(crop).is_integer())
        ):
            wanted = "a share of the side below 1, whole pixels, or whole"
            raise UserError(f"`crop` {crop}: must be {wanted}")
        self.network = network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.spec, self.device, self.precision = spec, device, precision
        self.crop, self.flip = crop, flip
        self.batch = pictures_together(batch, spec.size, device)
        self.scoring = Scoring() if scoring is None else scoring
        self.decision, self.origin = holding(decision, self.scoring), origin
        fit: FitName = "squash" if spec.fit == "squash" else "crop"
        self.prepare = Preprocess(spec.size, fit, crop)

    @classmethod
    def load(
        cls,
        checkpoint: str | Path,
        device: str = "auto",
        *,
        backbone: nn.Module | None = None,
        precision: PrecisionName = "auto",
        crop: float | Literal["whole"] | None = None,
        flip: bool | Literal["auto"] = "auto",
        scoring: ScoringName = "auto",
        batch: int = 128,
        checkpoints: str | Path = "checkpoints",
    ) -> Embedder:
        """Load the embedder of a checkpoint, or an exported model.

        Args:
            checkpoint: a file, e.g. a run's ``best.pt`` or an exported ``.onnx`` or
                ``.safetensors``; the folder that holds a ``best.pt``; or a run's name.
            device: ``auto`` (a GPU when there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
                A ``.onnx`` runs on those that onnxruntime has.
            backbone: the network, where it was a module of a program's own: one made as the trained
                one was. It gets the checkpoint's weights, and is used as it is, not copied.
            precision: arithmetic of the network; ``auto``: as ``siamese-eval`` takes it.
            crop: take the centre square of each picture first: its side in pixels, or as a share
                of the shorter side; ``whole``: the whole picture; None: as it was trained.
            flip: average each embedding with that of the mirrored picture; ``auto``: as
                ``siamese-eval`` does.
            scoring: what is compared by its cosine: ``cosine``, embeddings as they are; ``plda``
                and ``wccn``, mapped as ``siamese-eval plda`` or ``wccn`` has fitted it; ``auto``,
                as the threshold was chosen, without one ``cosine``. A threshold that was chosen
                with another scoring does not hold: ``decision`` is None then.
            batch: pictures at a time at most.
            checkpoints: folder of all runs' checkpoints, where a name is looked for.

        Raises:
            UserError: the file cannot be read as a checkpoint; its network is a module that was
                not handed over, or another one; device, precision or scoring are missing here; an
                option is out of its range.
        """
        if scoring not in get_args(ScoringName):
            raise UserError(f"`scoring` {scoring}: one of {', '.join(get_args(ScoringName))}")
        path = find_best(checkpoint, Path(checkpoints))
        content = read_checkpoint(path, keys=JUDGED)
        network, place = network_of(content, path, device, backbone=backbone)
        compared = scoring_of(content, path, scoring)
        return cls(
            network,
            spec_of(content),
            device=place,
            precision=precision_of(content, precision, place),
            crop=crop,
            flip=mirrors_of(content, path, compared, flip),
            batch=batch,
            decision=decision_of(content, path),
            scoring=compared,
            origin=os.path.abspath(path),
        )

    @cached_property
    def fingerprint(self) -> str:
        """Digest (64 hexadecimal digits) of the network's weights, preprocessing and scoring.

        Embeddings of two models can be compared where it is the same: a checkpoint and its exports
        in float32 share it, a quantised model has another, and so has another scoring. Taken when
        it is first asked for.
        """
        if isinstance(self.network, OnnxNetwork):
            mark = self.network.fingerprint
            return mark if self.scoring.in_graph else self.scoring.fingerprint(mark)
        return self.scoring.fingerprint(fingerprint_of(self.spec, self.network.state_dict()))

    @property
    def dimensions(self) -> int:
        """Length D of an embedding, as it is compared: PLDA keeps fewer than the network's.

        WCCN doubles them.
        """
        return self.scoring.dimensions(self.spec.embedding_dim)

    def embed(self, pictures: Picture | Iterable[Picture], *, flip: bool | None = None) -> Vectors:
        """Embed a folder, one picture or many; only one batch of them is held at a time.

        A large JPEG is decoded reduced when it is given by its path, as in training: its pixels in
        an array or a PIL picture give an embedding that differs a little.

        Args:
            pictures: a folder, see :meth:`embed_folder`; a path, a PIL picture, an array (H, W, C)
                or (N, H, W, C), a tensor (C, H, W) or (N, C, H, W); or an iterable of these, of any
                sizes. Arrays and tensors hold uint8 (0 to 255) or floats in 0 to 1; see
                :func:`siamese.data.in_memory.rgb_pictures`.
            flip: average with the mirrored pictures; None: as this embedder was loaded.

        Returns:
            embeddings float32 (N, D), in the order of the pictures, not normalised (an exported
            graph's are), mapped where its scoring does that: scores are cosines. N is 1 for a
            single picture.

        Raises:
            DecodeError: a file cannot be decoded; names it.
            UserError: what is given is no picture; says why.
        """
        if isinstance(pictures, str | os.PathLike) and os.path.isdir(pictures):
            return self.embed_folder(pictures, flip=flip).vectors
        total = len(pictures) if isinstance(pictures, Sized) and _is_many(pictures) else None
        return self._run(self._batches(pictures), total, flip)[0]

    __call__ = embed

    def embed_folder(
        self,
        folder: str | os.PathLike[str],
        *,
        skip_broken: bool = False,
        workers: int = 0,
        flip: bool | None = None,
    ) -> Embedded:
        """Embed the pictures of a folder, with one folder per person or the pictures in it.

        Args:
            folder: where they are. Other files, hidden ones and deeper folders are left out.
            skip_broken: leave out pictures that cannot be decoded instead of raising.
            workers: processes that decode; 0: none. Where there is one, on a CPU, processes of one
                thread each decode and embed, as many as torch has threads.
            flip: average with the mirrored pictures; None: as this embedder was loaded.

        Raises:
            DecodeError: a picture cannot be decoded; names it.
            UserError: no such folder; no picture in it.
        """
        found, by_person = pictures_in(Path(folder))
        broken = [item for item in found.left_out if item.reason.startswith(_BROKEN)]
        if broken and not skip_broken:
            raise DecodeError(
                f"{found.root / broken[0].path}: cannot be decoded ({broken[0].reason}); "
                "embed_folder(..., skip_broken=True) leaves such pictures out"
            )
        vectors, kept, failed = self.embed_listed(
            found, workers=workers, flip=flip, skip_broken=skip_broken
        )
        return Embedded(
            vectors,
            np.asarray(found.labels, np.int64)[kept] if by_person else None,
            found.names if by_person else (),
            tuple(found.paths[i] for i in kept),
            found.root,
            (*found.left_out, *(LeftOut(path, reason) for path, reason in failed)),
        )

    def embed_listed(
        self,
        folder: FaceFolder,
        *,
        workers: int = 0,
        cache: PictureReader | None = None,
        flip: bool | None = None,
        skip_broken: bool = True,
    ) -> tuple[Vectors, npt.NDArray[np.int64], list[tuple[str, str]]]:
        """Embed the pictures of a scanned folder.

        Args:
            workers: see :meth:`embed_folder`.
            cache: gives the prepared pictures; None: they are decoded.
            flip: see :meth:`embed`.
            skip_broken: leave out pictures that cannot be decoded instead of raising.

        Returns:
            embeddings float32 (N, D); positions int64 (N,) of the pictures in the folder; path and
            reason of each that cannot be decoded.
        """
        parts = list(
            self.embed_in_batches(
                folder, workers=workers, cache=cache, flip=flip, skip_broken=skip_broken
            )
        )
        vectors = [np.empty((0, self.dimensions), np.float32), *(part.vectors for part in parts)]
        kept = [np.empty(0, np.int64), *(part.kept for part in parts)]
        failed = [item for part in parts for item in part.failed]
        return np.concatenate(vectors), np.concatenate(kept), failed

    def embed_in_batches(
        self,
        folder: FaceFolder,
        *,
        first: int = 0,
        workers: int = 0,
        cache: PictureReader | None = None,
        flip: bool | None = None,
        skip_broken: bool = True,
        part: tuple[int, int] = (0, 1),
    ) -> Iterator[EmbeddedBatch]:
        """The same, a batch at a time, so that nothing of many pictures is held.

        Args:
            first: position of the picture to begin with; a multiple of ``batch`` gives the batches
                that a whole pass gives.
            part: (0, 3): of every three batches the first.
        """
        total = len(folder.paths)
        starts = range(first + part[0] * self.batch, total, part[1] * self.batch)
        network = folded(self.network.eval(), total, self.precision)
        flip = self._mirrored(flip)
        embedding = BatchEmbedding(network, self.batch, self.device, self.precision, flip)
        team = embedding.loaders(self.spec.backbone, workers, batches=len(starts))
        loader = evaluation_loader(
            folder,
            self.prepare,
            self.prepare.decode_size,
            batch_size=self.batch,
            workers=team or workers,
            pin_memory=self.device.type == "cuda",
            cache=cache,
            positions=[
                position
                for start in starts
                for position in range(start, min(start + self.batch, total))
            ],
            then=embedding.by_loader if team else None,
        )
        with _bar(total, first, shown=part[0] == 0) as bar:
            for batch in map(embedding, loader):
                if batch.failed and not skip_broken:
                    raise DecodeError(batch.failed[0][1])  # which names the picture
                vectors = np.empty((0, self.dimensions), np.float32)
                if len(batch.kept):
                    vectors = self.scoring.apply(batch.vectors)
                yield replace(batch, vectors=vectors)
                bar.update((len(batch.kept) + len(batch.failed)) * part[1])

    def verify(self, a: Picture, b: Picture, prior: float = 0.5) -> Verification:
        """Whether two pictures show one person.

        With a threshold (``siamese-eval threshold`` chooses one) they are embedded as it was
        chosen: averaged with the mirrored pictures or not, whatever ``flip`` is.

        Args:
            a: one picture; see :meth:`embed`.
            b: the other.
            prior: the probability that they show one person before they are compared, above 0 and
                below 1.

        Raises:
            DecodeError: a file cannot be decoded; names it.
            UserError: not one picture each; a prior out of its range.
        """
        require_prior(prior)
        flip = self.flip if self.decision is None else self.decision.flip
        vectors, _ = self._run(self._batches([a, b]), None, flip)
        if len(vectors) != 2:
            raise UserError(f"{len(vectors)} pictures: two are compared, one each")
        return self.judge_pair(vectors, prior)

    def judge_pair(self, vectors: npt.ArrayLike, prior: float = 0.5) -> Verification:
        """What two embeddings (2, D) say that were made as the threshold was chosen.

        Raises:
            UserError: NaN, Inf or nothing but zeros in one; a prior out of its range.
        """
        pair = prepare(vectors)
        score = float(level_scores(pair.levels(slice(0, 1), slice(1, 2)).numpy(), pair.zoom)[0, 0])
        return self.judge_score(score, prior)

    def embed_prepared(self, images: torch.Tensor, *, flip: bool | None = None) -> Vectors:
        """Embed pictures that went through :attr:`prepare`, all in one pass.

        Args:
            images: uint8 (N, 3, size, size), N at least 1.
            flip: see :meth:`embed`.

        Returns:
            embeddings float32 (N, D), as :meth:`embed` gives them.
        """
        batch = _Batch(images, torch.arange(len(images)))
        return self._run([batch], None, flip)[0]

    def judge_score(
        self, score: float, prior: float = 0.5, threshold: float | None = None
    ) -> Verification:
        """What a score says by the threshold and calibration of this model.

        Args:
            score: cosine similarity in [-1, 1].
            prior: see :meth:`verify`.
            threshold: taken instead of the model's own.

        Raises:
            UserError: a prior out of its range.
        """
        require_prior(prior)
        decision = self.decision
        probability = None
        if decision is not None:
            probability = float(decision.calibration.probability(score, prior))
        if threshold is not None:
            return Verification(score, threshold, score >= threshold, probability, prior)
        if decision is None:
            return Verification(score, None, None, None, prior)
        origin, fmr, limits, chosen_at = (
            decision.chosen.get(name) for name in ("origin", "fmr", "fmr_interval", "chosen_at")
        )
        # What a checkpoint says about the choice is not checked when it is read.
        return Verification(
            score,
            decision.threshold,
            score >= decision.threshold,
            probability,
            prior,
            decision.target_fmr,
            origin if isinstance(origin, str) else None,
            fmr if isinstance(fmr, float) else None,
            _interval(limits),
            chosen_at if isinstance(chosen_at, str) else None,
        )

    def _run(
        self, batches: Iterable[PictureBatch], total: int | None, flip: bool | None
    ) -> tuple[Vectors, npt.NDArray[np.int64]]:
        """Embeddings (N, D) of batches, and positions (N,) of the pictures that they are of."""

        def counted() -> Iterator[PictureBatch]:
            with _bar(total) as bar:
                for batch in batches:
                    yield batch
                    bar.update(len(batch.images))

        vectors, positions = embed(
            self.network,
            counted(),
            device=self.device,
            precision=self.precision,
            flip=self._mirrored(flip),
        )
        if not len(vectors):
            return np.empty((0, self.dimensions), np.float32), positions.numpy()
        # By batches, as a folder is: the last bit of a product may depend on its size.
        mapped = [self.scoring.apply(some.numpy()) for some in torch.split(vectors, self.batch)]
        return np.concatenate(mapped), positions.numpy()

    def _mirrored(self, flip: bool | None) -> bool:
        """Whether embeddings are averaged with those of the mirrored pictures.

        Raises:
            UserError: a graph averages them by itself and is asked not to, or maps them, which an
                average must come before.
        """
        flip = self.flip if flip is None else flip
        if isinstance(self.network, OnnxNetwork) and self.network.mirrors:
            if not flip:
                raise averages_itself(self.origin)
            return True
        if flip and self.scoring.in_graph:
            raise UserError(
                f"`flip` true: the graph {self.origin} maps each embedding by itself, which is not "
                "to map their average; export it with `flip` true, or take the checkpoint"
            )
        return flip

    def _batches(self, pictures: Picture | Iterable[Picture]) -> Iterator[_Batch]:
        size = self.prepare.decode_size
        prepared = map(self.prepare, rgb_pictures(pictures, size))
        done = 0
        while images := list(islice(prepared, self.batch)):
            yield _Batch(torch.stack(images), torch.arange(done, done + len(images)))
            done += len(images)


def _bar(total: int | None, done: int = 0, *, shown: bool = True) -> tqdm[Any]:
    """Progress where it takes more than a second and a terminal shows it."""
    return tqdm(
        total=total,
        initial=done,
        desc="embedding",
        unit="img",
        leave=False,
        delay=1,
        disable=None if shown else True,
    )


_BROKEN = ("unreadable image", "too large")  # reasons of the scan for what is a picture by its name


def _interval(limits: object) -> tuple[float, float] | None:
    if not isinstance(limits, list | tuple) or len(limits) != 2:
        return None
    low, high = limits
    return (low, high) if isinstance(low, float) and isinstance(high, float) else None


def _is_many(pictures: object) -> bool:
    """Whether the length of what is given is a number of pictures."""
    return not isinstance(pictures, str) and getattr(pictures, "ndim", 4) == 4


def pictures_in(root: Path) -> tuple[FaceFolder, bool]:
    """The pictures of a folder, and whether there is one folder per person.

    Raises:
        UserError: no such folder; no picture in it.
    """
    require_folder(root)
    entries = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith("."))
    if any((root / name).is_dir() for name in entries):
        return scan_folder(root), True
    files = [name for name in entries if is_regular(root / name)]
    reasons = check_headers(root, files)
    checked = list(zip(files, reasons, strict=True))
    good = tuple(name for name, reason in checked if reason is None)
    left_out = tuple(LeftOut(name, reason) for name, reason in checked if reason is not None)
    if not good and not any(item.reason.startswith(_BROKEN) for item in left_out):
        raise UserError(f"{root}: no picture in it")
    return FaceFolder(root, ("",), good, (0,) * len(good), left_out), False


def load_embedder(checkpoint: str | Path, device: str = "auto") -> Embedder:
    """Load the embedder of a checkpoint, ready to embed; :meth:`Embedder.load` has all options.

    Raises:
        UserError: the file cannot be read as a checkpoint, or the device is missing.
    """
    return Embedder.load(checkpoint, device)
