"""The library names settings in backquotes; whoever runs a command reads its flags."""

import ast
import re
from pathlib import Path

import pytest

from siamese.cli.flags import forget_flags, use_flags, with_flags

LIBRARY = ("config", "zoo", "errors.py")
ROOT = Path(__file__).resolve().parents[2] / "siamese"


@pytest.fixture
def flags():
    """The flags of a command with a few settings."""
    forget_flags()
    settings = {"images.size": False, "target_fmr": False, "model.options": True, "root": False}
    use_flags(settings, {"--size": "--size", "--data.root": "--root"})
    yield
    forget_flags()


@pytest.mark.usefixtures("flags")
@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("`images.size` 7: must be 8", "--images.size 7: must be 8"),
        (
            "give `target_fmr` or `images.size`, not both",
            "give --target_fmr or --images.size, not both",
        ),
        ("try `size` 32", "try --size 32"),
        ("give `data.root`", "give --root"),  # what this command calls it
        ("`model.options`: none", "--model.options: none"),
        ("`model.options.depth` 21", "--model.options.depth 21"),
        ("`images.sizes` and `sized`", "`images.sizes` and `sized`"),
        ("`name: value` lines, `images.size 7`", "`name: value` lines, `images.size 7`"),
        ("``images.size``", "`--images.size`"),
        ("images.size, --size", "images.size, --size"),
        ("", ""),
    ],
)
def test_options_of_the_command_are_printed_as_flags(text, printed):
    assert with_flags(text) == printed


def test_no_command_no_flags():
    forget_flags()
    assert with_flags("`images.size` 7") == "`images.size` 7"


def test_a_command_prints_flags_in_errors_and_notes(run_here, monkeypatch, tmp_path):
    refused = run_here("train", "--size", 7, cwd=tmp_path)
    assert "siamese-train: error: --images.size 7: must be from 16 to" in refused.stderr
    refused = run_here("zoo", "train", "--model.options.depth", "x", cwd=tmp_path)
    assert "--model.options.depth x: must be a whole number" in refused.stderr
    # Another command in the same process: what it lacks stays a name.
    monkeypatch.setattr(
        "siamese.demo.demo_faces.write_demo_faces", lambda *_: print("`people`, `images.size`")
    )
    printed = run_here("data", "demo", "--out", "x", cwd=tmp_path)
    assert "--people, `images.size`\n" in printed.stdout


def test_printed_settings_are_as_they_were_given(run_here, tmp_path):
    printed = run_here("train", "--data", "`seed`", "--print_config", cwd=tmp_path)
    assert "data: '`seed`'\n" in printed.stdout


@pytest.mark.parametrize("room", LIBRARY)
def test_no_message_of_the_library_names_a_flag(room):
    files = [ROOT / room] if room.endswith(".py") else sorted((ROOT / room).rglob("*.py"))
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            raised = node.exc if isinstance(node, ast.Raise) else None
            for part in ast.walk(raised) if raised is not None else ():
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    assert not re.search(r"(?<!\w)--[a-z]", part.value), f"{file}: {part.value}"
