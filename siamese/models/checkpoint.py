"""The checkpoint file: one self-describing file, written atomically, read without trust."""

from __future__ import annotations

import os
import platform
import stat
from collections.abc import Collection, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

import torch

from siamese.config import LimitSettings
from siamese.errors import UserError, first_few
from siamese.files.places import is_regular
from siamese.files.writing import replacing
from siamese.models.checkpoint_schema import faults
from siamese.models.exported import is_exported, read_exported
from siamese.models.torch_file import NotReadable, read_torch_file

FORMAT = "siamese-checkpoint"
VERSION = 1

# What the model is: a checkpoint holds one of them, as a dictionary that builds the model again.
# embedder: EmbedderSpec. classifier: network, options, classes, channels, size, mean, std.
KINDS = {"embedder": "siamese-train", "classifier": "siamese-zoo train"}
# Everything else that a checkpoint holds; a file that lacks one of them is not ours.
KEYS = (
    "model",  # weights that were validated (the optimizer's eval-state, batch norms measured)
    "optimizer",  # state in eval mode
    "train_weights",  # parameters in train mode, to resume exactly; in the optimizer's order
    "loss",  # class weights of arcface and its kin, else empty
    "scheduler",
    "scaler",
    "progress",  # epoch, batch, step, images, seconds, best figure so far
    "random",  # random states, as tensors
    "settings",
    "split",  # folder and identities of each part; with lists their pictures, too
    "figures",  # validation figures of the weights above; empty when they were not validated
    "versions",
)
# What may be added to a finished checkpoint.
EXTRAS = (
    "decision",  # threshold and calibration; see siamese.verification.decision
    "scoring",  # a map of embeddings before they are compared; see siamese.models.scoring
)
# What is needed to judge a model; the rest serves to go on with its training.
JUDGED = ("model", "progress", "settings", "split", "figures", "versions")
_HEAD = ("format", "version")


def write_checkpoint(
    path: Path, content: Mapping[str, Any], *, like: os.stat_result | None = None
) -> None:
    """Write a checkpoint so that ``path`` holds either the old file or the whole new one.

    Args:
        like: permissions and time that the file gets; None: those of a new file.

    Raises:
        CannotWrite: a full disk or the like.
    """
    missing = [key for key in KEYS if key not in content]
    if missing:
        raise ValueError(f"checkpoint lacks {', '.join(missing)}")
    if sum(kind in content for kind in KINDS) != 1:
        raise ValueError(f"a checkpoint is one of {', '.join(KINDS)}")
    with replacing(path) as temporary:
        with open(temporary, "wb") as file:
            _save({"format": FORMAT, "version": VERSION, **content}, file)
            file.flush()
            os.fsync(file.fileno())
        if like is not None:
            os.chmod(temporary, stat.S_IMODE(like.st_mode))
            os.utime(temporary, ns=(like.st_atime_ns, like.st_mtime_ns))
    _sync_folder(path.parent)


def _save(content: Mapping[str, Any], file: IO[bytes]) -> None:
    """``torch.save``, whose own error for a full disk is a RuntimeError about positions."""
    try:
        torch.save(dict(content), file)
    except RuntimeError as error:
        reason = error.__context__
        raise reason if isinstance(reason, OSError) else OSError(0, str(error)) from None


def update_checkpoint(
    path: Path,
    key: str,
    value: Any,
    *,
    model: Mapping[str, Any] | None = None,
    without: str | None = None,
    limits: LimitSettings | None = None,
) -> None:
    """Set one of the :data:`EXTRAS` of a checkpoint; everything else in it stays as it is.

    The file keeps its permissions and its time: the newest run stays the newest.

    Args:
        model: the weights that the value was found with; None: any.
        without: another of the extras, which does not hold any longer and is removed with it.

    Raises:
        UserError: the file is not a readable checkpoint, or an exported model; it holds other
            weights by now.
    """
    if key not in EXTRAS or without not in (None, *EXTRAS):
        raise ValueError(f"{key}, {without}: none of {', '.join(EXTRAS)}")
    if is_exported(path):
        raise UserError(
            f"{path}: nothing is written into an exported model; choose it for the checkpoint and "
            "export again"
        )
    # Through a link: the file it points to is replaced, not the link.
    file = Path(path).resolve()
    before = file.stat() if file.exists() else None
    content = read_checkpoint(path, limits=limits)
    held = content["model"]
    if model is not None and not (
        model.keys() == held.keys() and all(torch.equal(model[name], held[name]) for name in model)
    ):
        raise UserError(
            f"{path}: holds other weights than it did at the start (a training run goes on?), so "
            "nothing was written into it; do it again when training has ended"
        )
    kept = {name: held for name, held in content.items() if name != without}
    write_checkpoint(file, {**kept, key: value}, like=before)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut, where the system can open folders."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_checkpoint(
    path: Path,
    kind: str = "embedder",
    *,
    keys: Collection[str] | None = None,
    limits: LimitSettings | None = None,
) -> dict[str, Any]:
    """Read a checkpoint to the CPU; nothing in the file can run code (``weights_only``).

    An exported model (``.onnx``, ``.safetensors``) gives what it holds of one: no state of its
    training, and a ``split`` that is empty where the people did not travel.

    Sizes that the file declares are checked before anything is allocated for them, and every value
    that is read is checked against :mod:`siamese.models.checkpoint_schema`.

    Args:
        keys: what is needed of :data:`KEYS`, e.g. :data:`JUDGED`; None: all. The kind's description
            and the extras are always there.

    Raises:
        UserError: missing, truncated, hostile, foreign, of another kind, too large, or written by
            a newer version; names the values that cannot be used.
    """
    path = Path(path)
    if not os.path.exists(path):
        raise UserError(f"{path}: no such checkpoint")
    wanted = KEYS if keys is None else tuple(keys)
    if is_exported(path):
        return _of_exported(path, kind, wanted, limits)
    content = _read(path, {*_HEAD, *KINDS, *EXTRAS, *wanted}, limits)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path}: is not a siamese checkpoint; train one with siamese-train")
    if type(content.get("version")) is not int or not 1 <= content["version"] <= VERSION:
        raise UserError(f"{path}: written by a newer siamese; update siamese to read it")
    _require_kind(content, kind, path)
    missing = [key for key in (kind, *wanted) if key not in content]
    if missing:
        raise UserError(f"{path}: is damaged, it lacks {', '.join(missing)}")
    if wrong := faults(content):
        raise UserError(f"{path}: is damaged, its {first_few(wrong)} cannot be used")
    return content


def _require_kind(content: Mapping[str, Any], kind: str, path: Path) -> None:
    others = [other for other in KINDS if other != kind and other in content]
    if others and kind not in content:
        raise UserError(
            f"{path}: its kind is {others[0]} ({KINDS[others[0]]}), but {kind} ({KINDS[kind]}) is "
            "needed"
        )


def _of_exported(
    path: Path, kind: str, wanted: Collection[str], limits: LimitSettings | None
) -> dict[str, Any]:
    """What an exported model holds, where that is enough."""
    content = {"split": {}, **read_exported(path, limits or LimitSettings())}
    _require_kind(content, kind, path)
    if missing := [key for key in wanted if key not in content]:
        raise UserError(
            f"{path}: an exported model has no {missing[0]}, it is there to be used; take the "
            "checkpoint that it was made of"
        )
    return content


def _read(path: Path, keys: Collection[str], limits: LimitSettings | None) -> Any:
    try:
        return read_torch_file(path, str(path), limits or LimitSettings(), keys=keys)
    except NotReadable:
        raise UserError(
            f"{path}: is not a readable siamese checkpoint (truncated, damaged or foreign file)"
        ) from None


def find_best(target: str | Path, checkpoints: Path) -> Path:
    """The checkpoint that is meant by its path, its folder, or the name of its run.

    Args:
        target: a file; a folder that holds ``best.pt``; or a run below ``checkpoints``.

    Raises:
        UserError: there is none; names the latest runs.
    """
    given = Path(target)
    for path in (given, given / "best.pt", checkpoints / target / "best.pt"):
        if is_regular(path):
            return path
    runs = sorted(checkpoints.glob("*/best.pt"), key=lambda path: path.stat().st_mtime_ns)
    known = ", ".join(path.parent.name for path in runs[-5:])
    hint = f"; the latest runs there: {known}" if runs else ""
    raise UserError(f"{target}: no such checkpoint, and no such run in {checkpoints}{hint}")


def newest_best(checkpoints: Path, limits: LimitSettings | None = None) -> Path:
    """The most recently written ``<run>/best.pt`` of an embedder.

    Raises:
        UserError: there is none.
    """
    there = filter(is_regular, checkpoints.glob("*/best.pt"))
    found = sorted(there, key=lambda path: path.stat().st_mtime_ns)
    for path in reversed(found):
        if not _is_classifier(path, limits):
            return path
    raise UserError(
        f"no {checkpoints}/*/best.pt of faces yet: train with siamese-train first, or give "
        "`checkpoint` FILE"
    )


def _is_classifier(path: Path, limits: LimitSettings | None) -> bool:
    """Whether a file is a classifier's checkpoint; the weights in it are not read."""
    try:
        content = _read(path, KINDS, limits)
    except UserError:  # whatever is wrong with it is told where it is read
        return False
    return isinstance(content, dict) and "classifier" in content


def package_versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    names = ("siamese", "torch", "torchvision", "timm", "pytorch-metric-learning", "schedulefree")
    versions = {"python": platform.python_version()}
    for name in (*names, "numpy", "pillow"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "unknown"
    return versions
