"""Tables from outside: any cells come back, whoever wrote the file."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from siamese.errors import UserError
from siamese.files.csv_tables import read_table

CELL = st.text(st.characters(codec="utf-8"), max_size=6)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(CELL, CELL, CELL), max_size=5),
    st.sampled_from(["", "\ufeff"]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_cells_and_lines_come_back(
    tmp_path: Path, rows: list[tuple[str, str, str]], mark: str, ending: str
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=ending, quoting=csv.QUOTE_ALL)
    writer.writerow(["to", "more", " Path"])
    writer.writerows(rows)
    file = tmp_path / "t.csv"
    file.write_bytes((mark + text.getvalue()).encode())
    read = read_table(file, ["path", "to"])
    assert [cells for _, cells in read] == [[path, to] for to, _, path in rows]
    lines = [int(where.removeprefix(f"{file}, line ")) for where, _ in read]
    assert lines[:1] == [2][: len(rows)]
    assert lines == sorted(set(lines))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1: '' has no column a"),
        (b"a,c\n", "line 1: 'a,c' has no column b, or has it twice"),
        (b"a,b,a\n", "line 1: 'a,b,a' has no column a, or has it twice"),
        (b"\x1b[2J,b\n", r"line 1: '\\x1b\[2J,b' has no column a"),
        (b"a,b\n\n1,2\n3\n", "line 4: 1 values, 2 are needed"),
        (b'a,b\n"1,2\n', "line 2: not a CSV file"),
    ],
)
def test_what_is_no_such_table_is_refused_with_its_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(UserError, match=rf"t\.csv, {message}"):
        read_table(tmp_path / "t.csv", ["a", "b"])
