"""What the service does with the pictures and names that it is sent."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TypeVar

import torch
from fastapi import HTTPException, Request

from siamese import __version__
from siamese.config.using import ServeSettings
from siamese.cropping.face_cutter import NoFace
from siamese.data.decode import DecodeError
from siamese.errors import UserError
from siamese.files.shown import shown
from siamese.models.inference import Embedder, Vectors
from siamese.recognition.gallery import Upload, head_of, require_name
from siamese.serving.answers import (
    Candidate,
    Enrolled,
    Forgotten,
    Health,
    Histogram,
    Identified,
    Known,
    Model,
    Verified,
)
from siamese.serving.batching import Batcher
from siamese.serving.keeper import Keeper
from siamese.serving.limits import Uploads
from siamese.serving.pictures import Cut, Seen, Sent, png_uri, prepared
from siamese.verification.scores import normalise

Result = TypeVar("Result")


class Service:
    """A model and a gallery that answer many at once.

    Pictures are decoded by some threads, embedded by one (:class:`Batcher`), and the gallery has
    threads of its own (:class:`Keeper`). Nothing of a picture stays but what a gallery stores.

    Args:
        model: the embedder.
        settings: of the service.
        cut: takes the face out of each picture first; None: the pictures are faces.

    Raises (all its methods that answer):
        HTTPException: with one line that says what is wrong.
    """

    def __init__(self, model: Embedder, settings: ServeSettings, cut: Cut | None = None):
        self.settings, self.model, self._cut = settings, model, cut
        self.keeper = Keeper(settings.gallery, model)
        self.batcher = Batcher(model, settings.batch, settings.wait / 1000)
        self._uploads = Uploads(settings.limits)
        self._decoders = ThreadPoolExecutor(max(2, os.cpu_count() or 1), "siamese-decoder")
        # How pictures of two are embedded: as the threshold was chosen.
        self._flip = head_of(model).flip

    def warm_up(self) -> None:
        """One pass of the network, the first of which takes many times as long as others."""
        size = self.model.spec.size
        images = torch.zeros(1, 3, size, size, dtype=torch.uint8)
        self.batcher.embed(images, flip=self._flip).result()

    def close(self) -> None:
        """Finish what was begun."""
        self.batcher.close()
        self._decoders.shutdown()
        self.keeper.close()

    async def verify(self, request: Request, prior: float, pictures: bool) -> Verified:
        """Whether two pictures, the parts ``a`` and ``b``, show one person."""
        async with self._uploads.receive(request, a=1, b=1) as sent:
            seen, vectors = await self._embed([*sent["a"], *sent["b"]], self._flip)
        answer = self.model.judge_pair(vectors, prior)
        a, b = await self._shown(seen) if pictures else (None, None)
        return Verified(
            score=answer.score,
            threshold=answer.threshold,
            same=answer.same,
            probability=answer.probability,
            prior=answer.prior,
            a=a,
            b=b,
        )

    async def identify(
        self, request: Request, top: int, prior: float, pictures: bool
    ) -> Identified:
        """Whom a picture, the part ``picture``, shows."""
        flip = await self._of_gallery(asyncio.wrap_future(self.keeper.is_flipped()))
        async with self._uploads.receive(request, picture=1) as sent:
            seen, vectors = await self._embed(sent["picture"], self._flip if flip is None else flip)
        found = await self._of_gallery(
            asyncio.wrap_future(self.keeper.identify(vectors, top, prior))
        )
        (picture,) = await self._shown(seen) if pictures else (None,)
        if found is None:
            return Identified(
                name=None, threshold=None, chosen_for=None, candidates=[], picture=picture
            )
        return Identified(
            name=found.name,
            threshold=found.threshold,
            chosen_for=found.chosen_for,
            candidates=[
                # Not the path, which is of this machine.
                Candidate(name=one.name, score=one.score, probability=one.probability)
                for one in found.candidates
            ],
            picture=picture,
        )

    async def enroll(self, request: Request, name: str) -> Enrolled:
        """Enrol the files of the parts ``pictures``: all of them or, where one fails, none."""
        person = _named(name)
        flip = await self._of_gallery(asyncio.wrap_future(self.keeper.is_flipped()))
        most = self.settings.limits.pictures
        async with self._uploads.receive(request, pictures=most) as sent:
            files = [one.file for one in sent["pictures"]]
            seen, vectors = await self._embed(
                sent["pictures"], self._flip if flip is None else flip
            )
        uploads = [
            Upload(file, one.digest, vector)
            for file, one, vector in zip(files, seen, vectors, strict=True)
        ]
        done = await self._of_gallery(asyncio.wrap_future(self.keeper.enroll(person, uploads)))
        return Enrolled(name=person, added=done.added, present=done.present, notes=list(done.notes))

    async def forget(self, name: str) -> Forgotten:
        """Remove a person and all that is stored about them."""
        person = _named(name)
        removed = await self._of_gallery(asyncio.wrap_future(self.keeper.forget(person)))
        if removed is None:
            raise HTTPException(404, "nobody of that name is enrolled")
        return Forgotten(name=person, removed=removed)

    async def people(self) -> list[Known]:
        """Everybody, by name."""
        everybody = await self._of_gallery(asyncio.wrap_future(self.keeper.people()))
        return [Known(**asdict(one)) for one in everybody]

    async def health(self) -> Health:
        """That model and gallery can be used."""
        everybody = await self._of_gallery(asyncio.wrap_future(self.keeper.people()))
        return Health(
            status="ok", version=__version__, model=self.model.fingerprint, people=len(everybody)
        )

    def describe(self) -> Model:
        """The model, and what was chosen for it; no name and no place of a file."""
        limits, decision = self.settings.limits, self.model.decision
        said = self.model.judge_score(0.0)
        histogram = None if decision is None else decision.histogram
        people = None if decision is None else decision.chosen.get("people")
        return Model(
            model=self.model.fingerprint,
            size=self.model.spec.size,
            photographs=self._cut is not None,
            threshold=said.threshold,
            target_fmr=said.target_fmr,
            fmr=said.fmr,
            fmr_interval=said.fmr_interval,
            people=people if type(people) is int else None,
            chosen_at=said.chosen_at,
            histogram=None
            if histogram is None
            else Histogram(genuine=list(histogram.genuine), impostor=list(histogram.impostor)),
            pictures=limits.pictures,
            picture_bytes=int(limits.picture * 2**20),
        )

    async def _embed(self, sent: Sequence[Sent], flip: bool) -> tuple[list[Seen], Vectors]:
        """What the network sees of some pictures, and their embeddings (n, D)."""
        loop, pixels = asyncio.get_running_loop(), int(self.settings.limits.pixels * 1e6)
        with self.batcher.coming():
            decoding = [
                loop.run_in_executor(self._decoders, prepared, one, self.model, pixels, self._cut)
                for one in sent
            ]
            try:
                seen = await asyncio.gather(*decoding)
            except (DecodeError, NoFace) as error:
                raise HTTPException(422, str(error)) from None
            embedding = self.batcher.embed(torch.stack([one.pixels for one in seen]), flip=flip)
        vectors = await asyncio.wrap_future(embedding)
        try:
            normalise(vectors)
        except UserError:
            raise HTTPException(422, "the model makes nothing of a picture") from None
        return seen, vectors

    async def _shown(self, seen: Sequence[Seen]) -> list[str]:
        loop = asyncio.get_running_loop()
        drawing = [loop.run_in_executor(self._decoders, png_uri, one.pixels) for one in seen]
        return await asyncio.gather(*drawing)

    async def _of_gallery(self, work: Awaitable[Result]) -> Result:
        """What a gallery gives; what is wrong with it is told here, not to who asks."""
        try:
            return await work
        except UserError as error:
            print(f"siamese-use: {shown(str(error))}", file=sys.stderr, flush=True)
            told = "the gallery cannot be used now; the service's own output says why"
            raise HTTPException(503, told, {"Retry-After": "10"}) from None


def _named(name: str) -> str:
    """A person's name in the form that is stored, or 422."""
    try:
        return require_name(name)
    except UserError:
        raise HTTPException(
            422, "the name cannot be kept; give 1 to 500 characters of Unicode"
        ) from None
