"""Exported models, `.onnx` and `.safetensors`: read without trust, as a checkpoint's content.

Both hold one JSON text, the *description*: all of a checkpoint that is needed to use the model. In
a ``.safetensors`` it stands in the header, in a ``.onnx`` among the properties; key ``siamese``. It
binds what it describes: by the fingerprint of the weights, or by the digest of the graph.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from siamese.config import LimitSettings
from siamese.config.common import plain
from siamese.errors import UserError
from siamese.files.fields import parse_json
from siamese.files.places import open_regular
from siamese.files.shown import shown
from siamese.models.checkpoint_schema import faults
from siamese.models.embedder import EmbedderSpec
from siamese.models.fingerprint import fingerprint
from siamese.models.onnx_network import load_graph
from siamese.models.scoring import Baked, ScoringMap, take_tensors
from siamese.models.torch_file import GIB, MIB, NotReadable, require_regular, weights_too_large

KEY = "siamese"  # of the description, in a file's header or properties
FORMAT, VERSION = "siamese-model", 1
SUFFIXES = (".onnx", ".safetensors")
_GIVEN = ("embedder", "progress", "settings", "figures", "versions", "fingerprint")
_MAYBE = ("split", "decision", "scoring")
_DIGEST = re.compile("[0-9a-f]{64}")
# Python's memory for a value of JSON that takes two characters, and protobuf's for a byte of what
# may be messages in messages.
_VALUE, _BYTE = 64, 64
# Numbers of fields in protobuf's messages ModelProto, GraphProto and TensorProto.
_GRAPH, _PROPERTIES, _INITIALIZER, _RAW_DATA = 7, 14, 5, 9


def is_exported(path: str | os.PathLike[str]) -> bool:
    """Whether a file is an exported model, by its name; else it is a checkpoint."""
    return Path(path).suffix.lower() in SUFFIXES


def describe(
    content: Mapping[str, Any],
    mark: str,
    *,
    people: bool = False,
    graph: str | None = None,
    scoring: Baked | None = None,
    mirrored: bool = False,
) -> dict[str, Any]:
    """What travels with an exported model, plain values.

    Args:
        content: of the checkpoint.
        mark: the model's fingerprint.
        people: also the split, with the names of people; they are personal data.
        graph: digest of the graph; see :func:`graph_digest`.
        scoring: the map that lies beside the weights, or is part of the graph.
        mirrored: whether the graph averages embeddings with those of the mirrored pictures.
    """
    trained = content["settings"]
    settings = {"trainer": {"precision": trained.get("trainer", {}).get("precision", "auto")}}
    described: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "fingerprint": mark,
        "embedder": content["embedder"],
        "progress": {"epoch": content["progress"]["epoch"]},
        "settings": settings,
        # JSON has no NaN; a figure that does not exist is left out.
        "figures": {k: v for k, v in content["figures"].items() if math.isfinite(v)},
        "versions": content["versions"],
    }
    if people and content["split"]:
        described["split"] = content["split"]
        described["settings"] = {**settings, "data": trained.get("data")}
    if "decision" in content:
        described["decision"] = content["decision"]
    if scoring is not None:
        described["scoring"] = scoring.as_dict()
    if graph is not None:
        described["graph"] = graph
    if mirrored:
        described["mirrored"] = True
    return described


def as_text(description: Mapping[str, Any]) -> str:
    """The JSON of a description, ASCII."""
    return json.dumps(plain(dict(description)), allow_nan=False)


def read_exported(path: Path, limits: LimitSettings, suffix: str | None = None) -> dict[str, Any]:
    """The content of an exported model, as a checkpoint's: what it lacks is not in it.

    Args:
        path: the file.
        limits: how much it may take.
        suffix: which kind it is; None: by its name.

    Returns:
        keys of a checkpoint and ``fingerprint``; for a graph ``onnx`` (its bytes) besides, and no
        weights in ``model``; ``baked`` where it maps its embeddings (:class:`Baked`), and
        ``mirrored``, whether it averages them with those of the mirrored pictures.

    Raises:
        UserError: missing, damaged, foreign, too large; a graph that would do more than embed.
    """
    require_regular(path, str(path))
    if os.path.getsize(path) > limits.weights * GIB:
        raise weights_too_large(str(path), limits)
    kind = path.suffix.lower() if suffix is None else suffix
    try:
        return _read_onnx(path, limits) if kind == ".onnx" else _read_safetensors(path, limits)
    except NotReadable:
        raise UserError(
            f"{path}: is not a readable {kind} file (truncated, damaged or foreign)"
        ) from None


def _read_safetensors(path: Path, limits: LimitSettings) -> dict[str, Any]:
    """The format declares every size in a header, which its library checks against the file."""
    from safetensors import safe_open

    with open_regular(path) as file:
        size = int.from_bytes(file.read(8), "little")
        if 8 + size > os.fstat(file.fileno()).st_size:
            raise NotReadable
        _weigh(file.read(min(size, int(limits.description * MIB) + 1)), path, limits)
    try:
        with safe_open(path, framework="pt", device="cpu") as opened:
            text = (opened.metadata() or {}).get(KEY)
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except Exception as error:  # whatever the header lacks
        raise NotReadable(str(error)) from None
    tensors = take_tensors(weights)
    content = {**_described(text, path, limits), "model": weights}
    content.pop("mirrored", None)  # weights alone do nothing
    spec = EmbedderSpec(**plain(content["embedder"]))
    if fingerprint(spec, weights) != content["fingerprint"]:
        raise UserError(f"{path}: is damaged, its weights are not those that it describes")
    if described := _baked(content, path):
        try:
            told = described.as_dict()
            content["scoring"] = {
                **tensors,
                **{name: told[name] for name in ("fitted", "kind") if name in told},
            }
            found = ScoringMap.from_dict(content["scoring"], spec.embedding_dim)
        except ValueError:
            found = None
        if found is None or found.digest != described.digest:
            raise UserError(f"{path}: is damaged, its scoring is not the one that it describes")
    return content


def _baked(content: dict[str, Any], path: Path) -> Baked | None:
    """Take out of a description what it says of a map; None: nothing."""
    if "scoring" not in content:
        return None
    try:
        return Baked.from_dict(content.pop("scoring"), content["embedder"]["embedding_dim"])
    except (ValueError, TypeError):
        raise UserError(
            f"{path}: is damaged, its scoring cannot be used; export the checkpoint again"
        ) from None


def _read_onnx(path: Path, limits: LimitSettings) -> dict[str, Any]:
    with open_regular(path) as file:
        data = file.read()
    digest = graph_digest(data, path, limits)
    properties = load_graph(data, str(path))
    text = properties.get(KEY)
    content = _described(text, path, limits)
    if content.pop("graph", None) != digest:
        raise UserError(
            f"{path}: its graph is another one than it describes (damaged, or changed after the "
            "export); export the checkpoint again"
        )
    if not isinstance(content.setdefault("mirrored", False), bool):
        raise UserError(f"{path}: is damaged, its mirrored cannot be used")
    if baked := _baked(content, path):
        content["baked"] = baked
    return {**content, "model": {}, "onnx": data}


def _described(text: str | None, path: Path, limits: LimitSettings) -> dict[str, Any]:
    """The checked description; all of it is as a checkpoint would have it."""
    if text is None:
        raise UserError(
            f"{path}: is no model of siamese, it lacks the description; siamese-use export writes "
            "such files"
        )
    _weigh(text.encode("utf-8", "replace"), path, limits)
    try:
        given = parse_json(text)
    except ValueError:
        raise NotReadable from None
    if not isinstance(given, dict) or given.get("format") != FORMAT:
        raise NotReadable
    if type(given.get("version")) is not int or not 1 <= given["version"] <= VERSION:
        raise UserError(f"{path}: written by a newer siamese; update siamese to read it")
    content = {key: given[key] for key in (*_GIVEN, *_MAYBE, "graph", "mirrored") if key in given}
    wrong = [key for key in _GIVEN if key not in content] or faults(content)
    mark = content.get("fingerprint")
    if not wrong and not (isinstance(mark, str) and _DIGEST.fullmatch(mark)):
        wrong = ["fingerprint"]
    if wrong:
        raise UserError(f"{path}: is damaged, its {shown(wrong[0])} cannot be used")
    return content


def _weigh(text: bytes, path: Path, limits: LimitSettings) -> None:
    """Refuse JSON that would make more than the limit, by the values that it can hold."""
    values = sum(text.count(sign) for sign in b"[{,:")
    _spend(len(text) + _VALUE * values, path, limits)


def _spend(size: int, path: Path, limits: LimitSettings) -> None:
    if size > limits.description * MIB:
        raise UserError(
            f"{path}: what it holds beside the weights takes more than {limits.description:g} MiB;"
            " if you trust the file, raise `limits.description`"
        )


def graph_digest(data: bytes, path: Path, limits: LimitSettings) -> str:
    """SHA-256 (hex) of all of an ONNX file but its properties; sizes are looked at on the way.

    What is no weights becomes many small objects when it is parsed, so it is counted first.

    Args:
        data: the file.
        path: of it, for messages.
        limits: how much it may take.

    Raises:
        NotReadable: not one model in protobuf's format.
        UserError: more than the limits beside the weights.
    """
    digest, graphs, told = hashlib.sha256(), 0, 0

    def tell(size: int) -> None:
        nonlocal told
        told += _BYTE * (size + 2)
        _spend(told, path, limits)

    for number, whole, content in _fields(memoryview(data)):
        if number != _PROPERTIES:
            digest.update(whole)
        if number != _GRAPH:
            # A long text is one object.
            tell(len(whole) // (_BYTE if number == _PROPERTIES else 1))
            continue
        graphs += 1
        for inner, part, tensor in _fields(content):
            if inner != _INITIALIZER:
                tell(len(part))
                continue
            tell(len(part) - len(tensor))
            for field, entry, raw in _fields(tensor):
                tell(len(entry) - (len(raw) if field == _RAW_DATA else 0))
    if graphs != 1:
        raise NotReadable
    return digest.hexdigest()


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """Number, all bytes and content of each field of a protobuf message."""
    at = 0
    while at < len(message):
        start = at
        key, at = _varint(message, at)
        first = at
        if key & 7 == 0:
            at = _varint(message, at)[1]
        elif key & 7 == 2:
            size, first = _varint(message, at)
            at = first + size
        elif key & 7 in (1, 5):
            at += 8 if key & 7 == 1 else 4
        else:
            raise NotReadable
        if at > len(message):
            raise NotReadable
        yield key >> 3, message[start:at], message[first:at]


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number of seven bits per byte, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise NotReadable
