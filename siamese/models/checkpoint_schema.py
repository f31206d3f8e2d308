"""What a checkpoint holds, as one schema: each value's kind and range, checked by every reader.

The format is version 1 of :data:`siamese.models.checkpoint.FORMAT`. A key that is not read (see
``read_checkpoint``) is not checked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from siamese.config import LARGEST_DIMENSION, LARGEST_SIDE, usable_pixels

# A schema is what must hold of a plain value, or a dictionary of schemas by key: all of them must
# be there but for those whose key ends in "?", and nothing else.
Check = Callable[[Any], bool]
Schema = Check | dict[str, Any]

_LARGEST_COUNT = 2**62
_LARGEST_OPTION = 10**6  # of a network: no depth, width or side comes near it
_MOST_CLASSES = 10**6
_FIGURES = 10**4
_TEXT = 4096


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _TEXT and "\0" not in value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(low: int, high: int) -> Check:
    return lambda value: type(value) is int and low <= value <= high


def _number(low: float, high: float) -> Check:
    return lambda value: _is_number(value) and low <= value <= high  # NaN lies nowhere


def _one_of(*values: object) -> Check:
    return lambda value: isinstance(value, str) and value in values


def _list_of(check: Check, least: int = 0, most: float = math.inf) -> Check:
    return lambda value: (
        isinstance(value, list) and least <= len(value) <= most and all(map(check, value))
    )


def _named(check: Check, most: float = math.inf) -> Check:
    """A dictionary with any names."""
    return lambda value: (
        isinstance(value, dict)
        and len(value) <= most
        and all(map(_is_text, value))
        and all(map(check, value.values()))
    )


def _is_option(value: Any, depth: int = 4) -> bool:
    """A constructor's argument: small numbers, texts, and short lists of them."""
    if isinstance(value, list | tuple | dict):
        items = value.values() if isinstance(value, dict) else value
        return depth > 0 and len(value) <= 100 and all(_is_option(v, depth - 1) for v in items)
    if _is_number(value):
        return bool(abs(value) <= _LARGEST_OPTION)
    return value is None or isinstance(value, bool) or _is_text(value)


def _is_weights(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and torch.is_tensor(tensor) for name, tensor in value.items()
    )


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _is_settings(value: Any) -> bool:
    """Groups of settings by name; what each may be is known where a run goes on."""
    return (
        isinstance(value, dict)
        and all(map(_is_text, value))
        and (value.get("data") is None or _is_text(value["data"]) or _is_mapping(value["data"]))
        and _is_mapping(value.get("trainer", {}))
    )


_EMBEDDER: Schema = {
    "backbone": _is_text,
    "embedding_dim": _whole(1, LARGEST_DIMENSION),
    "size": _whole(1, LARGEST_SIDE),
    "fit": _one_of("squash", "crop"),
    "mean": _list_of(_is_number, 3, 3),
    "std": _list_of(_is_number, 3, 3),
    "color_order?": _one_of("RGB"),
    "pooling?": _one_of("avg", "gem"),
    "neck?": _one_of("none", "batch_norm"),
    "crop?": lambda value: value is None or (_is_number(value) and 0 < value < 1),
}
_CLASSIFIER: Schema = {
    "network": _is_text,
    "options": _named(_is_option, 100),
    "drop_path": lambda value: _number(0, 1)(value) and value < 1,
    "classes": _list_of(_is_text, 1, _MOST_CLASSES),
    "channels": _whole(1, 64),
    "size": _whole(1, LARGEST_SIDE),
    "test_size": _whole(1, LARGEST_SIDE),
    "test_crop": lambda value: _number(0, 1)(value) and value > 0,
    "mean": _list_of(_is_number, 1, 64),
    "std": _list_of(_is_number, 1, 64),
}
_PROGRESS: Schema = {
    "epoch": _whole(0, _LARGEST_COUNT),
    "batch?": _whole(0, _LARGEST_COUNT),
    "step?": _whole(0, _LARGEST_COUNT),
    "images?": _whole(0, _LARGEST_COUNT),
    "seconds?": _number(0, math.inf),
    "best?": _is_number,  # NaN before the first validation
    "best_epoch?": _whole(0, _LARGEST_COUNT),
    "loss_sum?": _is_number,
    "detail_sums?": _named(_is_number, _FIGURES),
    "details?": _whole(0, _LARGEST_COUNT),
}
_PART: Schema = {
    "folder": _is_text,
    "identities": _list_of(_is_text),
    "pictures": _whole(0, _LARGEST_COUNT),
    "listed?": _named(_list_of(_is_text)),
}
_RANDOM: Schema = {"cpu?": torch.is_tensor, "cuda?": _list_of(torch.is_tensor)}
SCHEMA: dict[str, Schema] = {
    "embedder": _EMBEDDER,
    "classifier": _CLASSIFIER,
    "model": _is_weights,
    "optimizer": _is_mapping,
    "train_weights": _list_of(torch.is_tensor),
    "loss": _is_weights,
    "scheduler": _is_mapping,
    "scaler": _is_mapping,
    "progress": _PROGRESS,
    "random": _RANDOM,
    "settings": _is_settings,
    "split": {"train": _PART, "validation?": _PART, "test?": _PART},
    "figures": _named(_is_number, _FIGURES),
    "versions": _named(_is_text, _FIGURES),
}


def faults(content: Mapping[str, Any]) -> list[str]:
    """The values of a checkpoint that cannot be what they should, e.g. ``embedder.size``."""
    found = [
        fault
        for key, schema in SCHEMA.items()
        if key in content
        for fault in _faults(content[key], schema, key)
    ]
    if not found:
        for key, channels in (("embedder", 3), ("classifier", None)):
            spec = content.get(key, {})
            if spec and not usable_pixels(
                spec["mean"], spec["std"], spec["channels"] if channels is None else channels
            ):
                found.append(f"{key}.std")
    return found


def _faults(value: Any, schema: Schema, where: str) -> Iterator[str]:
    if callable(schema):
        if not schema(value):
            yield where
        return
    if not isinstance(value, dict):
        yield where
        return
    names = {key.removesuffix("?"): inner for key, inner in schema.items()}
    yield from (f"{where}.{key}" for key in schema if key[-1] != "?" and key not in value)
    for key, item in value.items():
        if key in names:
            yield from _faults(item, names[key], f"{where}.{key}")
        else:  # the name itself comes from the file
            yield f"{where} (an unknown entry)"
