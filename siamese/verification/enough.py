"""When there is too little to say anything: one rule for people, pairs and seeds.

Below these numbers a figure is still computed, because somebody may want to see it, but it selects,
draws and decides with a note; nothing is told as if it were known.
"""

from __future__ import annotations

# Below: not even the first digit of a figure is known (at 10 people an AUC of 0.97 has an interval
# of 0.1), and a curve is a picture of a few faces.
FEWEST_PEOPLE = 10
# Below: one pair or image more or less moves an error rate by over a percentage point.
FEWEST_PAIRS = 100
FEWEST_IMAGES = 100
# Below: the t quantile of a paired difference alone is above 12 (n = 2), or there is none (n = 1).
FEWEST_SEEDS = 3

# Below: nothing is known about how many suspects are wrong pictures. Measured were models of AUC
# 0.75 to 0.8, whose suspects were wrong in four of five cases (README, Results).
WEAKEST_AUDITOR = 0.75


def too_weak_to_audit(auc: float) -> str | None:
    """A line where a model is too weak for pictures to be moved by it; None where it may.

    Args:
        auc: how well it tells people apart, in [0, 1], the less flattering of the known figures.
    """
    if auc >= WEAKEST_AUDITOR:
        return None
    return (
        f"the model is too weak to move pictures by (AUC {auc:.3f}, at least {WEAKEST_AUDITOR} is "
        "needed): train longer or on more people, start from pretrained weights, or audit another "
        "system's embeddings (`embeddings`)"
    )


def too_few_people(people: int, what: str = "people") -> str | None:
    """A line where people are too few to say anything; None where they are enough."""
    if people >= FEWEST_PEOPLE:
        return None
    return (
        f"{people} {what} are too few to say how good the model is: other people would give other "
        f"figures; at least {FEWEST_PEOPLE} are needed, 30 are better"
    )


def too_few_pairs(genuine: int, impostor: int, where: str = "") -> str | None:
    """A line where genuine or impostor pairs are too few; None where they are enough."""
    where = where and f" {where}"
    for count, kind in ((genuine, "genuine"), (impostor, "impostor")):
        if count < FEWEST_PAIRS:
            return (
                f"{count} {kind} pairs{where} are too few to say how often errors occur; at least "
                f"{FEWEST_PAIRS} are needed"
            )
    return None


def too_few_images(images: int, classes: int, what: str = "images") -> str | None:
    """A line where images are too few to judge a classifier; None where they are enough."""
    needed = max(FEWEST_IMAGES, classes)
    if images >= needed:
        return None
    return (
        f"{images} {what} of {classes} classes are too few to say how often errors occur; at least "
        f"{needed} are needed"
    )


def too_few_seeds(seeds: int) -> str | None:
    """A line where runs with different seeds are too few for a verdict; None where enough."""
    if seeds >= FEWEST_SEEDS:
        return None
    return f"too few seeds ({seeds}): a verdict needs at least {FEWEST_SEEDS}"
