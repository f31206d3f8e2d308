"""What a check can find: kinds of findings, how bad they are, and what is told of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
Kind = Literal[
    "unreadable", "zero_bytes", "bomb", "failed", "closed_folder", "linked_folder", "twin_folders",
    "copies_across", "shared_pictures", "similar_names", "near_across", "copies_within",
    "near_within", "blank", "wrong_extension", "too_small", "odd_aspect", "animated", "nested",
    "outside", "special", "no_pictures", "rotated", "colour_mode", "one_picture", "not_picture",
    "hidden",
]  # fmt: skip


@dataclass(frozen=True)
class About:
    """A kind of finding: how bad it is, its title, what it means and what is done about it."""

    severity: Severity
    title: str
    meaning: str


@dataclass(frozen=True)
class Found:
    """One case of a finding.

    Attributes:
        paths: the file or folder, or those that belong together; relative to the root.
        detail: what is special about it, in a few words.
    """

    paths: tuple[str, ...]
    detail: str = ""


@dataclass(frozen=True)
class Finding:
    """All cases of one kind.

    Attributes:
        kind: names the plan's file, too.
        found: the cases.
        command: mends them, ready for a shell; None: nothing but a look helps.
        plan: what the command carries out.
        moves: number of files and folders that the plan moves.
    """

    kind: Kind
    found: tuple[Found, ...]
    command: str | None = None
    plan: Path | None = None
    moves: int = 0

    @property
    def about(self) -> About:
        """The kind's severity and words."""
        return ABOUT[self.kind]

    def paths(self) -> list[str]:
        """Every path, each once."""
        return list(dict.fromkeys(path for case in self.found for path in case.paths))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "kind": self.kind,
            "severity": self.about.severity,
            "title": self.about.title,
            "meaning": self.about.meaning,
            "count": len(self.found),
            "command": self.command,
            "plan": None if self.plan is None else str(self.plan),
            "moves": self.moves,
            "found": [{"paths": list(case.paths), "detail": case.detail} for case in self.found],
        }


_OUT = "The plan takes them out"
# The worst first; within a plan, what an earlier kind moves is left alone.
ABOUT: dict[Kind, About] = {
    "unreadable": About(
        "error", "unreadable or truncated pictures",
        f"Pillow cannot decode them to the end; training would leave them out or stop. {_OUT}.",
    ),
    "zero_bytes": About("error", "files of zero bytes", f"Nothing is in them. {_OUT}."),
    "bomb": About(
        "error", "decompression bombs",
        f"More pixels than Pillow holds for safe; they were not decoded. {_OUT}.",
    ),
    "failed": About(
        "error", "files that crash or hang the reader",
        f"A process that read them died or never came back. {_OUT}; look at them one by one.",
    ),
    "closed_folder": About(
        "error", "folders and files that may not be read", "The permissions forbid it.",
    ),
    "linked_folder": About(
        "error", "the same folder under a second name",
        "A link makes one person into two, or leads back into the folder; its pictures are not "
        "looked at twice. The plan takes the link out, not what it leads to.",
    ),
    "twin_folders": About(
        "error", "folders of one name",
        "Their names differ only in Unicode form, letter case or spaces: one person who could end "
        "up in training and in test. The plan moves the smaller folders' files into the largest.",
    ),
    "copies_across": About(
        "error", "the same file in several people's folders",
        "At most one of the people can be the right one, and the file tells not which: the plan "
        "takes every copy out. (siamese-data audit tells by a model where they belong.)",
    ),
    "shared_pictures": About(
        "warning", "people who share half of their pictures",
        "Two folders with the same files in them are often one person under two names. Look at "
        "them; the plan moves the smaller folders' files into the largest.",
    ),
    "similar_names": About(
        "warning", "folders of nearly one name",
        "Their names are equal but for full-width letters and other look-alikes. Look at them; "
        "the plan moves the smaller folders' files into the largest.",
    ),
    "near_across": About(
        "warning", "nearly the same picture in several people's folders",
        "Resized, recompressed or retouched copies: one of the labels is wrong, or a test person "
        "was seen in training. Look at them; the plan takes all of them out.",
    ),
    "copies_within": About(
        "warning", "the same file several times in a person's folder",
        "A pair of two copies is no evidence of anything; it makes figures look better than they "
        "are. The plan keeps one of each.",
    ),
    "near_within": About(
        "warning", "nearly the same picture several times in a person's folder",
        "Such pairs are too easy: they inflate validation. The plan keeps the largest, and of what "
        "it takes out each is near to one that stays.",
    ),
    "blank": About(
        "warning", "pictures of one colour", f"Nothing is to be seen on them. {_OUT}.",
    ),
    "wrong_extension": About(
        "warning", "file names that do not say what is in them",
        "Training goes by the content, other programs by the name. The plan renames them.",
    ),
    "too_small": About(
        "warning", "pictures that are too small", f"Little of a face is left. {_OUT}.",
    ),
    "odd_aspect": About(
        "warning", "pictures that are too long or too wide",
        f"Training squeezes them into a square. {_OUT}.",
    ),
    "animated": About(
        "warning", "animated files, or files of several pictures",
        "Training takes the first picture only. The command writes such a folder of still ones.",
    ),
    "nested": About(
        "warning", "folders inside a person's folder",
        "Training leaves them out, which is right where they were set aside on purpose "
        "(same_face/). The plan moves their files up into the person's folder.",
    ),
    "outside": About(
        "warning", "files beside the people's folders",
        f"Nobody knows whose they are; training leaves them out. {_OUT}.",
    ),
    "special": About(
        "warning", "things that are no files", f"Broken links, pipes, devices. {_OUT}.",
    ),
    "no_pictures": About(
        "warning", "people without a usable picture", f"{_OUT}, as whole folders.",
    ),
    "rotated": About(
        "note", "pictures that only EXIF turns upright",
        "Training turns them; other programs may not. The command writes a folder of upright ones.",
    ),
    "colour_mode": About(
        "note", "pictures that are not 8-bit colour",
        "Greyscale, CMYK, 16-bit: training converts them each time. The command writes a folder of "
        "RGB pictures.",
    ),
    "one_picture": About(
        "note", "people with one picture",
        "No pair of theirs can be formed; they serve as strangers only. "
        f"{_OUT}, as whole folders.",
    ),
    "not_picture": About(
        "note", "files that are no pictures", f"Training leaves them out. {_OUT}.",
    ),
    "hidden": About(
        "note", "hidden files and folders", f"Training leaves them out. {_OUT}.",
    ),
}  # fmt: skip
