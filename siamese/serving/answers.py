"""What the service answers, as OpenAPI describes it."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Refusal(BaseModel):
    """Why a request was refused."""

    detail: str = Field(description="One line.")


class Health(BaseModel):
    """That the service works, and with what."""

    status: str = Field(description="ok")
    version: str = Field(description="of siamese")
    model: str = Field(description="fingerprint of the model: weights, preprocessing, scoring")
    people: int = Field(description="how many are enrolled")


class Histogram(BaseModel):
    """Pairs of the people whom the threshold was chosen on, in equal bins of score from -1 to 1."""

    genuine: list[int] = Field(description="pairs of one person in each bin")
    impostor: list[int] = Field(description="pairs of two people in each bin")


class Model(BaseModel):
    """The model and what was chosen for it."""

    model: str = Field(description="fingerprint")
    size: int = Field(description="side of what the network sees, in pixels")
    photographs: bool = Field(description="whether faces are cut out of the pictures first")
    threshold: float | None = Field(description="of two pictures; null: none was chosen")
    target_fmr: float | None = Field(description="the false-match rate it was chosen for")
    fmr: float | None = Field(description="the false-match rate on those it was chosen on")
    fmr_interval: tuple[float, float] | None = Field(description="its 95 % interval")
    people: int | None = Field(description="how many it was chosen on")
    chosen_at: str | None = Field(description="when, ISO 8601 in UTC")
    histogram: Histogram | None = Field(description="null: none is stored in the model")
    pictures: int = Field(description="most pictures of one enrolment")
    picture_bytes: int = Field(description="largest file of a picture")


class Verified(BaseModel):
    """Whether two pictures show one person."""

    score: float = Field(description="cosine similarity, in [-1, 1]")
    threshold: float | None = Field(description="from which on it is one person; null: none chosen")
    same: bool | None = Field(description="whether the score reaches it; null: none chosen")
    probability: float | None = Field(description="that it is one person; null: not calibrated")
    prior: float = Field(description="the probability before the pictures were compared")
    a: str | None = Field(None, description="what the network sees (with pictures=true), a PNG URI")
    b: str | None = Field(None, description="the same of the other picture")


class Candidate(BaseModel):
    """Somebody whom a picture may show."""

    name: str
    score: float = Field(description="the best with their enrolled pictures, in [-1, 1]")
    probability: float | None = Field(description="that it is them; null: not calibrated")


class Identified(BaseModel):
    """Whom a picture shows."""

    name: str | None = Field(description="null: nobody known")
    threshold: float | None = Field(description="from which on somebody is known; null: none")
    chosen_for: str | None = Field(description="what the threshold was chosen for")
    candidates: list[Candidate] = Field(description="the best first")
    picture: str | None = Field(None, description="what the network sees (with pictures=true)")


class Enrolled(BaseModel):
    """What an enrolment has done."""

    name: str = Field(description="as it is stored, in Unicode's form NFC")
    added: int = Field(description="pictures that are new")
    present: int = Field(description="pictures that the person had already")
    notes: list[str] = Field(description="people who seem to be enrolled under another name, too")


class Forgotten(BaseModel):
    """Whom nothing is stored of any more."""

    name: str
    removed: int = Field(description="pictures")


class Known(BaseModel):
    """An enrolled person."""

    name: str
    pictures: int
    first: str = Field(description="when the first picture was enrolled, ISO 8601 in UTC")
    last: str = Field(description="when the last was")
