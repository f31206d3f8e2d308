"""The test of a run: whether it is that of the epoch which counts."""

import json
from pathlib import Path
from typing import Any

import pytest

from siamese.tasks.classes.testing import TEST, is_tested


@pytest.mark.parametrize(
    ("progress", "tested"),
    [
        ({"epoch": 5, "best_epoch": 3}, True),
        ({"epoch": 3, "best_epoch": 3}, True),
        ({"epoch": 3, "best_epoch": 2}, False),  # the best one is what was to be tested
        ({"epoch": 3, "best_epoch": 0}, True),  # nothing selects: the last one is
        ({"epoch": 4, "best_epoch": 0}, False),  # more epochs were given
    ],
)
def test_a_test_counts_for_its_epoch_alone(
    tmp_path: Path, progress: dict[str, int], tested: bool
) -> None:
    path = tmp_path / TEST
    assert not is_tested(path, progress)
    path.write_text(json.dumps({"epoch": 3, "error": 1.5}))
    assert is_tested(path, progress) is tested


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[3]", b"3", b"null", b'{"error": 1}', b'{"epoch": "3"}', b"\xff\xfe",
     b'{"epoch": 3, "epoch"', b"[" * 10_000, b'{"epoch": 3}' + b" " * 2**20],
    ids=lambda content: repr(content[:12]),
)  # fmt: skip
def test_a_damaged_test_is_made_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / TEST).write_bytes(content)
    progress: dict[str, Any] = {"epoch": 3, "best_epoch": 3}
    assert not is_tested(tmp_path / TEST, progress)


def test_what_is_no_file_is_no_test(tmp_path: Path) -> None:
    (tmp_path / TEST).symlink_to("/dev/zero")
    assert not is_tested(tmp_path / TEST, {"epoch": 3})
