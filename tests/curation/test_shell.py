"""Commands as a shell reads them."""

import os
import shutil
import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from siamese.curation.shell import command_line, path_word

ANY_WORD = st.binary(max_size=12).filter(lambda b: b"\0" not in b).map(os.fsdecode)


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@settings(max_examples=40, deadline=None)
@given(st.lists(ANY_WORD | st.text(max_size=8).filter(lambda t: "\0" not in t and all(
    not 0xD800 <= ord(c) < 0xE000 for c in t)), max_size=6))  # fmt: skip
@example(["夏子 ", "夏子　x", "it's", "caf\udce91", "a\nb", "$(x)", "\\'\x01", "a  b  ", "!x", ""])
def test_a_shell_gets_every_byte(words):
    line = command_line("printf", "%s\\0", *words)
    # As it is copied from a screen, whose programs may join white space.
    line = " ".join(line.encode("utf-8").decode().split(" "))
    told = subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout
    assert told == b"".join(os.fsencode(word) + b"\0" for word in words or [""])


def test_what_needs_no_quotes_has_none():
    assert command_line(
        "siamese-data", "check", "夏子/x.jpg"
    ) == "siamese-data check 夏子/x.jpg" or (command_line("a", "夏子") == "a '夏子'")


@pytest.mark.parametrize("line", ["a  b", "a　b", "a\nb", " x", "caf\udce9"])
def test_joined_white_space_does_no_harm(line):
    told = command_line("x", line)
    assert " ".join(told.split()) == told
    told.encode()


@pytest.mark.parametrize(
    ("given_path", "word"),
    [("-x", "./-x"), ("null", "./null"), ("#a/b", "./#a/b"), ("a/b", "a/b"), ("/a", "/a"),
     ("../a", "../a"), ("夏子/b", "夏子/b"), ("~/a", "./~/a"), ("k=v/x", "./k=v/x")],
)  # fmt: skip
def test_a_path_is_taken_for_nothing_else(given_path, word):
    assert path_word(given_path) == word
