"""The file of the face detector's network: where it comes from, and what is read."""

from __future__ import annotations

import hashlib
import os
import sys
import urllib.request
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from siamese.cropping.detection import YuNet, network_fault, require_opencv
from siamese.curation.inspection import work_watched
from siamese.curation.shell import command_line, path_word
from siamese.errors import UserError
from siamese.files.online import why_unreachable
from siamese.files.places import read_bytes
from siamese.files.writing import replacing

NAME = "face_detection_yunet_2023mar.onnx"
# OpenCV's model zoo keeps it in Git LFS, whose pointer states checksum and size.
URL = (
    "https://github.com/opencv/opencv_zoo/raw/f12e12798e8314f7c074a6656816c048dcc95b7a/models/"
    f"face_detection_yunet/{NAME}"
)
SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
SIZE = 232_589  # bytes

_LIMIT = 16 * 2**20  # bytes of a detector; the largest of YuNet's takes a fortieth
_POINTER = b"version https://git-lfs"
_SILENCE = 20.0  # seconds without a byte after which a server counts as gone
_PATIENCE = 60.0  # seconds that a first look at a network may take


@dataclass(frozen=True)
class FetchedDetector:
    """The network's file, which is there now."""

    path: Path
    already: bool

    def text(self) -> str:
        """What there is now, and what to do with it."""
        words = "is there already" if self.already else f"{SIZE:,} bytes, SHA-256 as it should be"
        crop = ("siamese-data", "crop", "PHOTOS", "--out", "faces", "--detector")
        return f"{self.path}: {words}\nnext: {command_line(*crop, path_word(self.path))}"


def fetch_detector(out: Path) -> FetchedDetector:
    """Download YuNet's network from OpenCV's model zoo, unless it is there.

    Args:
        out: the file to write, or a folder for it.

    Raises:
        UserError: another file is there; no network (says how to do it by hand); what was sent has
            another checksum, and is not kept.
    """
    path = out / NAME if out.is_dir() else out
    if os.path.lexists(path):
        if hashlib.sha256(read_bytes(path, limit=_LIMIT)).hexdigest() != SHA256:
            raise UserError(f"`out` {path}: is another file than {NAME}; move it away")
        return FetchedDetector(path, True)
    print(
        f"downloading {URL}\n  {SIZE:,} bytes, MIT licence, SHA-256 {SHA256}\n  to {path}",
        file=sys.stderr,
    )
    content = _download(path)
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise UserError(
            f"{URL}: sent {len(content):,} bytes with another checksum than {SHA256}; nothing is "
            "kept"
        )
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return FetchedDetector(path, False)


def _download(path: Path) -> bytes:
    try:
        if unreachable := why_unreachable(URL):
            raise OSError(unreachable)
        with urllib.request.urlopen(URL, timeout=_SILENCE) as answer:
            content: bytes = answer.read(SIZE + 1)
    except Exception as error:  # no network, a refusal, an answer that is cut off or no HTTP
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise UserError(
            f"{NAME} cannot be downloaded ({reason}); go on when there is network, or load {URL} "
            f"with a browser, save it as {path} and compare its SHA-256, {SHA256}"
        ) from None
    return content


def read_detector(path: Path, side: int, score: float, workers: int) -> tuple[YuNet, str | None]:
    """The detector in an ONNX file; any file of YuNet's form is taken.

    Its network is looked at in a process of its own (``workers`` 0: in this one): a file that
    crashes OpenCV is refused as any other.

    Returns:
        the detector, and a note where the file is not the one that :func:`fetch_detector` gives.

    Raises:
        UserError: OpenCV is missing; the file is, is too large, or is no such network.
    """
    require_opencv()
    network = read_bytes(path, f"`detector` {path}", _LIMIT)
    if network.startswith(_POINTER):
        raise UserError(
            f"`detector` {path}: is a pointer of Git LFS to the network, not the network; "
            f"{fetch_hint()}"
        )
    look = partial(_fault_of, network, side)
    checks = work_watched([str(path)], look, str, workers=min(workers, 1), patience=_PATIENCE)
    for _, reason in checks:
        if reason:
            raise UserError(f"`detector` {path}: {reason}; {fetch_hint()}")
    found = hashlib.sha256(network).hexdigest()
    note = None
    if found != SHA256:
        note = f"{path} is not {NAME} of OpenCV's model zoo; its SHA-256 is {found}"
    return YuNet(network, side, score), note


def _fault_of(network: bytes, side: int, _path: str) -> str:
    return network_fault(network, side) or ""


def fetch_hint() -> str:
    """How to get the network."""
    return "siamese-data fetch yunet --out yunet.onnx downloads one"
