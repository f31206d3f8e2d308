"""The named networks, from ``presets.tsv`` beside this file; imports no torch."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Preset:
    """A named choice of a family's constructor arguments.

    ``published`` is a test error on CIFAR-10 in per cent, median (number of runs), of the last
    epoch and without augmentation beyond crop and flip; ``recipe`` is what it was trained with, as
    far as it was stated (all of it: configs/studies/published.csv). ``parameters`` with 10 classes
    and multiply-accumulates of one 32 px RGB image are as :func:`siamese.zoo.count_cost` counts
    them, which takes half a minute for all: ``scripts/count_costs.py``.
    """

    name: str
    family: str
    description: str
    options: Mapping[str, Any]
    published: str | None
    recipe: str | None
    parameters: int
    macs: int


def _read() -> tuple[Preset, ...]:
    path = Path(__file__).with_name("presets.tsv")
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return tuple(
            Preset(
                row["name"],
                row["family"],
                row["description"],
                json.loads(row["options"]),
                row["published"] or None,
                row["recipe"] or None,
                int(row["parameters"]),
                int(row["macs"]),
            )
            for row in rows
        )


PRESETS = _read()
