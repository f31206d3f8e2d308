"""Plans as files: what is written is read, what is no plan is refused with its line."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from siamese.curation.plans import Move, mend_command, read_plan, write_plan
from siamese.errors import UserError

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
ANY_NAME = (
    st.binary(min_size=1, max_size=12)
    .filter(lambda b: b"\0" not in b and b[:1] != b"/" and b".." not in b.split(b"/"))
    .map(os.fsdecode)
)


@given(st.lists(st.builds(Move, ANY_NAME, st.none() | ANY_NAME), max_size=5))
@example(
    [Move("夏子/a,b.jpg", None), Move('"\r\n', "=1+1"), Move("caf\udce9", " "), Move("\r", "\n")]
)
def test_what_is_written_is_read(moves):
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        path = Path(folder) / "new" / "plan.csv"
        write_plan(path, moves)
        assert read_plan(path) == moves
        assert path.read_bytes().startswith(b"path,to\r\n")


def test_names_stay_the_bytes_that_they_are(tmp_path):
    write_plan(tmp_path / "plan.csv", [Move("caf\udce9/夏.jpg", None)])
    assert (tmp_path / "plan.csv").read_bytes() == b"path,to\r\ncaf\xe9/\xe5\xa4\x8f.jpg,\r\n"


@pytest.mark.parametrize(
    "written",
    [
        b"path,to\na,\n\"b,c\",d\n",
        b"\xef\xbb\xbfpath,to\r\na,\r\n\"b,c\",d\r\n\r\n",
        b"why,to,path\nblurred,,a\nx,d,\"b,c\"\n",
    ],
)  # fmt: skip
def test_spreadsheets_may_have_saved_it(tmp_path, written):
    (tmp_path / "plan.csv").write_bytes(written)
    assert read_plan(tmp_path / "plan.csv") == [Move("a", None), Move("b,c", "d")]


@pytest.mark.parametrize(
    ("written", "told"),
    [
        (b"", "plan.csv, line 1: .* begins with the line path,to"),
        (b"name;to\n", "plan.csv, line 1: 'name;to' has no column path"),
        (b"path,to\na,\na,b,c\n", "plan.csv, line 3: 3 values, 2 are needed"),
        (b"path,to\na\n", "plan.csv, line 2: 1 values"),
        (b"path,to\na,b\n,b\n", "plan.csv, line 3: the path is empty"),
        (b"path,to\na,\n../a,b\n", r"plan\.csv, line 3: '\.\./a' leads out of the folder"),
        (b"path,to\na,/b\n", "plan.csv, line 2: '/b' leads out"),
        (b"path,to\na/../../x,\n", "plan.csv, line 2: .* leads out"),
        (b"path,to\n\x1b[2Ja\0b,\n", r"plan\.csv, line 2: '\\x1b\[2Ja\\x00b' leads out"),
        (
            b"path,to,path\na,b,c\n",
            "plan.csv, line 1: .* has no column path, or has it twice",
        ),
        (b"\xff\xfep\0a\0t\0h\0", "plan.csv, line 1: .* has no column path"),
        (b"path,to\n" + b"x" * 200_000 + b",\n", "plan.csv, line 2: not a CSV file"),
    ],
)
def test_what_is_no_plan_is_refused_with_its_line(tmp_path, written, told):
    (tmp_path / "plan.csv").write_bytes(written)
    with pytest.raises(UserError, match=told):
        read_plan(tmp_path / "plan.csv")


def test_a_folder_is_no_plan(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        read_plan(tmp_path)


def test_the_command_names_both():
    assert mend_command("faces", "runs/a b/plan.csv") == (
        "siamese-data mend ./faces --plan 'runs/a b/plan.csv'"
    )
    assert mend_command("/f", "p/x", "-q") == "siamese-data mend /f --plan p/x --quarantine ./-q"


def test_a_pipe_is_no_plan(tmp_path):
    os.mkfifo(tmp_path / "plan.csv")
    with pytest.raises(UserError, match="is a device or pipe"):
        read_plan(tmp_path / "plan.csv")
