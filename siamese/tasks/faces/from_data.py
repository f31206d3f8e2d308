"""What follows from the training people where the settings leave it open; imports no torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

from siamese.config import TrainSettings

_BATCH = 64  # pictures
_PICTURES_EACH = 4
_SEEN, _LEAST_EPOCHS, _MOST_EPOCHS = 60_000, 10, 100


def with_choices(
    settings: TrainSettings, counts: Sequence[int], say: Callable[[str], None] = lambda _: None
) -> TrainSettings:
    """The settings with P, K and the epochs filled in where they are null.

    Args:
        counts: pictures of each training person.
        say: told what was chosen, and why.
    """
    batches, trainer = settings.batches, settings.trainer
    usable = [count for count in counts if count >= 2] or [2]
    if batches.images is None:
        images = min(_PICTURES_EACH, int(statistics.median(usable)))
        batches = replace(batches, images=images)
        say(
            f"batches.images: {images}, as half of the people have {statistics.median(usable):g} "
            "pictures or more"
        )
    if batches.people is None:
        wanted = max(2, _BATCH // batches.images_drawn)
        people = min(wanted, max(2, len(usable)))
        batches = replace(batches, people=people)
        why = f"a batch of {people * batches.images_drawn} pictures"
        if people < wanted:
            why = f"all training people with two pictures; {why}"
        say(f"batches.people: {people}, {why}")
    if trainer.epochs is None:
        drawn = batches.images_per_epoch or max(1, sum(counts))
        epochs = epochs_for(drawn)
        trainer = replace(trainer, epochs=epochs)
        say(f"trainer.epochs: {epochs}, about {epochs * drawn} pictures")
    return replace(settings, batches=batches, trainer=trainer)


def epochs_for(pictures: float) -> int:
    """Epochs of so many pictures, where none are set."""
    return min(max(math.ceil(_SEEN / max(pictures, 1)), _LEAST_EPOCHS), _MOST_EPOCHS)
