"""Embeddings of other systems: what is taken, refused, and told; hostile files."""

import html
import io
import json
import resource
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from siamese.errors import UserError
from siamese.report.embedding_files import load_embeddings, save_embeddings
from siamese.report.embedding_sources import Embeddings
from siamese.verification.sample_warnings import embedding_warnings, label_warnings
from siamese.verification.scores import check_labels, normalise

NAMES = ("Ann", "夏子", "Bob Lee")
LABELS = np.repeat(np.arange(3), 4)
PATHS = np.array([f"{NAMES[label]}/{at}.jpg" for at, label in enumerate(LABELS)])
VECTORS = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)


def saved(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "e.npz"


@pytest.mark.parametrize("vectors", ["features", "feats", "embeddings", "emb", "X", "arr_0"])
@pytest.mark.parametrize("labels", ["targets", "labels", "y", "ids", "arr_1"])
def test_usual_names_of_arrays(file: Path, vectors: str, labels: str) -> None:
    found = load_embeddings(saved(file, **{vectors: VECTORS, labels: LABELS, "extra": VECTORS}))
    assert np.array_equal(found.embeddings, VECTORS)
    assert np.array_equal(found.labels, LABELS)
    other = [f"{name} taken as the {role}" for name, role in
             ((vectors, "embeddings"), (labels, "labels")) if name != role]  # fmt: skip
    assert found.notes == ((f"{file}: {'; '.join(other)}",) if other else ())


def test_arrays_without_names_are_told_by_their_dimensions(file: Path) -> None:
    np.savez(file, LABELS, VECTORS)
    found = load_embeddings(file)
    assert np.array_equal(found.embeddings, VECTORS)
    assert "arr_1 taken as the embeddings; arr_0 taken as the labels" in found.notes[0]


@pytest.mark.parametrize(
    "arrays",
    [
        {"features": VECTORS, "feats": VECTORS, "labels": LABELS},
        {"embeddings": VECTORS, "y": LABELS, "ids": LABELS},
        {"arr_0": VECTORS, "arr_1": VECTORS, "arr_2": LABELS},
        {"embeddings": VECTORS, "arr_0": LABELS, "arr_1": LABELS},
    ],
)
def test_several_arrays_that_could_be_meant_are_refused(file: Path, arrays: dict) -> None:
    with pytest.raises(UserError, match=r"'\w+' and '\w+' may each be the (embeddings|labels)"):
        load_embeddings(saved(file, **arrays))


def test_our_own_name_wins_and_the_other_is_told(file: Path) -> None:
    arrays = {"embeddings": VECTORS, "features": VECTORS + 1, "labels": LABELS}
    found = load_embeddings(saved(file, **arrays))
    assert np.array_equal(found.embeddings, VECTORS)
    assert "embeddings taken as the embeddings (not features)" in found.notes[0]


@pytest.mark.parametrize("kind", ["U", "S"])
def test_texts_as_labels_become_names(file: Path, kind: str) -> None:
    names = np.array([NAMES[label] for label in LABELS])
    names = np.char.encode(names, "utf-8") if kind == "S" else names
    found = load_embeddings(saved(file, embeddings=VECTORS, labels=names))
    assert found.names is not None
    assert [found.names[label] for label in found.labels] == [NAMES[label] for label in LABELS]
    assert found.labels.dtype == np.int64
    assert "labels (texts) taken as names" in found.notes[0]


def test_one_name_per_picture_without_labels(file: Path) -> None:
    names = np.array([NAMES[label] for label in LABELS])
    found = load_embeddings(saved(file, encodings=VECTORS, names=names))
    assert found.names is not None
    assert [found.names[label] for label in found.labels] == names.tolist()


def test_a_name_in_two_unicode_forms_is_one_person(file: Path) -> None:
    names = np.array(["Jos\u00e9", "Jose\u0301"] * 6)
    assert load_embeddings(saved(file, embeddings=VECTORS, labels=names)).names == ("Jos\u00e9",)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f8"])
def test_whole_numbers_as_floats(file: Path, dtype: str) -> None:
    found = load_embeddings(saved(file, embeddings=VECTORS, labels=LABELS.astype(dtype)))
    assert np.array_equal(found.labels, LABELS)
    assert found.labels.dtype == np.int64
    assert "whole numbers as" in found.notes[0]


@pytest.mark.parametrize("wrong", [3.5, np.nan, np.inf, 1e300])
def test_other_floats_are_no_labels(file: Path, wrong: float) -> None:
    labels = LABELS.astype(float)
    labels[4] = wrong
    with pytest.raises(UserError, match=r"whole numbers or texts, and labels holds .* position 4"):
        load_embeddings(saved(file, embeddings=VECTORS, labels=labels))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"labels": np.array(["a"] * 12, object)},
            r"labels is an object array.*labels.astype\(str\)",
        ),
        ({"names": np.array(["a"] * 3, object)}, r"names is an object array.*names.astype\(str\)"),
        ({"embeddings": VECTORS.astype(object)}, r'object array.*astype\("float32"\)'),
        ({"labels": LABELS == 1}, "whole numbers or texts"),
        ({"labels": LABELS.astype(complex)}, "whole numbers or texts"),
        ({"labels": np.full(12, 2**64 - 1, np.uint64)}, "above 2"),
        ({"labels": PATHS, "names": np.array(NAMES)}, "names besides"),
        ({"embeddings": VECTORS.astype(complex)}, "must be numbers of shape"),
        ({"embeddings": VECTORS > 0}, "must be numbers of shape"),
        ({"embeddings": np.zeros((12, 0))}, "must be numbers of shape"),
        ({"embeddings": np.zeros(12, "f4,f4")}, "has fields"),
        ({"paths": np.arange(12)}, r"paths must be texts.*astype\(str\)"),
        ({"paths": np.array(["a\0b"] + ["c"] * 11)}, "zero bytes"),
        ({"names": np.array("a")}, r"names must have shape \(N,\)"),
    ],
)
def test_what_is_refused(file: Path, arrays: dict, message: str) -> None:
    saved(file, **{"embeddings": VECTORS, "labels": LABELS, **arrays})
    with pytest.raises(UserError, match=message) as caught:
        load_embeddings(file)
    assert "\n" not in str(caught.value)


def test_an_object_array_that_nobody_needs_is_not_looked_at(file: Path) -> None:
    arrays = {"meta": np.array([{}], object), "embeddings": VECTORS, "labels": LABELS}
    assert load_embeddings(saved(file, **arrays)).notes == ()


# .npy and --labels


def npy(tmp_path: Path) -> Path:
    np.save(tmp_path / "e.npy", VECTORS)
    return tmp_path / "e.npy"


@pytest.mark.parametrize(
    ("name", "content", "with_names"),
    [
        ("l.txt", "".join(f"{label}\n" for label in LABELS), False),
        ("l.txt", "\ufeff" + "".join(f"{NAMES[label]}\r\n" for label in LABELS) + "\r\n", True),
        ("l.csv", "".join(f"{NAMES[label]}\n" for label in LABELS), True),
        ("l.csv", "Path,Label\n" + "".join(
            f'"{path}",{NAMES[label]}\n' for path, label in zip(PATHS, LABELS, strict=True)), True),
        ("l.tsv", "id\tscore\n" + "".join(f"{label}\t0.1\n" for label in LABELS), False),
    ],
)  # fmt: skip
def test_labels_in_a_text(tmp_path: Path, name: str, content: str, with_names: bool) -> None:
    (tmp_path / name).write_bytes(content.encode())
    found = load_embeddings(npy(tmp_path), tmp_path / name)
    if with_names:
        assert found.names is not None
        assert [found.names[label] for label in found.labels] == [NAMES[at] for at in LABELS]
    else:
        assert np.array_equal(found.labels, LABELS)
    assert found.paths == (tuple(PATHS) if "Path" in content else None)


def test_labels_in_an_array_file(tmp_path: Path) -> None:
    np.save(tmp_path / "l.npy", LABELS.astype(np.float32))
    assert np.array_equal(load_embeddings(npy(tmp_path), tmp_path / "l.npy").labels, LABELS)
    np.savez(tmp_path / "e.npz", feats=VECTORS)
    assert np.array_equal(load_embeddings(tmp_path / "e.npz", tmp_path / "l.npy").labels, LABELS)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.txt", b"1\n" * 11, "11 labels for 12 embeddings"),
        ("l.txt", b"1\n" * 13, "13 labels for 12 embeddings"),
        ("l.txt", b"1\n" * 5 + b"\n" + b"1\n" * 6, "position 5 is empty"),
        ("l.txt", b"\xff\n" * 12, "line 1: is not UTF-8"),
        ("l.txt", b"x" * 100_000, "is larger than"),
        ("l.csv", b"a,b\n" + b"1,2\n" * 12, "no column is called like labels"),
        ("l.csv", b"label,y\n" + b"1,2\n" * 12, "may each be the labels"),
        ("l.csv", b"label,b\n1\n" + b"1,2\n" * 11, "line 2: 1 fields"),
        ("l.csv", b'label,b\n"1,2\n', "is no CSV"),
        ("l.npy", b"x", "is not a readable"),
        (".", b"", "is a folder"),
    ],
)
def test_labels_that_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    if name != ".":
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_embeddings(npy(tmp_path), tmp_path / name)


def test_labels_twice_are_refused(tmp_path: Path, file: Path) -> None:
    np.save(tmp_path / "l.npy", LABELS)
    saved(file, embeddings=VECTORS, labels=LABELS)
    with pytest.raises(UserError, match="has labels; leave one of them out"):
        load_embeddings(file, tmp_path / "l.npy")


# Every command takes them.


def test_every_command_takes_embeddings_without_labels(
    tmp_path: Path, evaluate: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from siamese.cli import data as data_command

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(12), 10)
    vectors = rng.normal(size=(12, 8))[labels] + rng.normal(scale=0.5, size=(120, 8))
    np.save("e.npy", vectors.astype(np.float16))
    Path("who.txt").write_text("".join(f"人{label}\n" for label in labels), encoding="utf-8")
    given = ("--embeddings", "e.npy", "--labels", "who.txt", "--out", "o")
    for command in ("det", "people", "identify"):
        told = evaluate(command, *given, *(("--resamples", 0) if command == "det" else ()))
        assert "taken as names" in told, command
    assert "人" in evaluate("people", *given)
    told = evaluate(
        "compare", "e.npy", "e.npy", "--labels", "who.txt", "--out", "o", "--resamples", 0
    )
    assert "no interval" in told
    monkeypatch.setattr("builtins.print", lambda *told: None)
    data_command._command(["audit", *given])
    assert Path("o/audit.html").exists()


# Sizes


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_honest_files_are_read_compressed_or_not(file: Path, save: Callable[..., None]) -> None:
    vectors = np.zeros((2000, 512), np.float32)
    vectors[:, 0] = 1
    save(file, embeddings=vectors, labels=np.arange(2000))
    assert np.array_equal(load_embeddings(file).embeddings, vectors)
    with pytest.raises(UserError, match=r"take 0\.003.* GiB, the limit is 0\.003 GiB.*_limit"):
        load_embeddings(file, limit=0.003)


def bomb(file: Path, name: str, header: bytes, size: int) -> None:
    """An .npz that also has an array of zeros, deflated to a thousandth."""
    saved(file, embeddings=VECTORS, labels=LABELS)
    with zipfile.ZipFile(file) as old:
        kept = {one: old.read(one) for one in old.namelist() if one != f"{name}.npy"}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for one, content in kept.items():
            new.writestr(one, content)
        with new.open(f"{name}.npy", "w", force_zip64=True) as stream:
            stream.write(header)
            for _ in range(size // 2**20):
                stream.write(bytes(2**20))


def header_of(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "header", "message"),
    [
        ("unused", header_of((2**20, 63)), None),
        ("embeddings", header_of((2**20, 63)), "1048576 embeddings|GiB|labels for"),
        ("labels", header_of((12,)), "needs .* bytes by its own header"),
        ("paths", header_of((12,), "<U5505024"), "limit is 0.1 GiB"),
        ("embeddings", b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "is not a readable"),
    ],
)
def test_bombs_do_not_go_off(file: Path, name: str, header: bytes, message: str | None) -> None:
    bomb(file, name, header, 252 * 2**20)
    tracemalloc.start()
    try:
        if message is None:
            assert np.array_equal(load_embeddings(file, limit=0.1).embeddings, VECTORS)
        else:
            with pytest.raises(UserError, match=message):
                load_embeddings(file, limit=0.1)
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()


def test_a_directory_that_is_too_large_is_not_read(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as new:
        for at in range(100):
            new.writestr(f"{at}" + "x" * 60_000, b"")
    with pytest.raises(UserError, match="is not a readable"):
        load_embeddings(file)


# Mutated files


def originals() -> list[bytes]:
    """Files of every kind that is read, as bytes."""
    found = []
    names, texts = np.array(NAMES), np.array([NAMES[label] for label in LABELS])
    for save in (np.savez, np.savez_compressed):
        for arrays in (
            {"embeddings": VECTORS, "labels": LABELS, "names": names, "paths": PATHS,
             "root": np.array("/x")},
            {"features": np.asfortranarray(VECTORS).astype("f2"), "y": LABELS.astype("f8")},
            {"feats": VECTORS.astype(">f8"), "targets": texts},
            {"arr_0": (VECTORS * 9).astype("i1"), "arr_1": np.char.encode(texts, "utf-8")},
        ):  # fmt: skip
            stream = io.BytesIO()
            save(stream, **arrays)
            found.append(stream.getvalue())
    stream = io.BytesIO()
    np.save(stream, VECTORS)
    return [*found, stream.getvalue()]


DTYPES = (
    "|O", "|V8", "<c8", "<f2", ">f8", "<f16", "<M8[s]", "|b1", "|S3", "<U3", "<U0", "|S0", "<i8",
    "<u8", "(3,)f4", "<U999999999", "f4,f4", "[('a','<f4')]", "(2**9)", "O8", "\ud800",
)  # fmt: skip
SHAPES = (
    "()", "(0,)", "(12,)", "(12, 0)", "(-12, 5)", "(12, -5)", "(10**9, 10**9)", "(99999999999, 5)",
    "(12, 5, 1)", "(True, 5)", "(12., 5)", "None", "(1,)*99", "(12, 999999999999999999999)",
    "(((((((((((((((", "(0, 99999999999999)",
)  # fmt: skip


def header(rng: np.random.Generator) -> bytes:
    """An .npy's beginning of any shape and type, true or not."""
    one = lambda choices: choices[rng.integers(len(choices))]  # noqa: E731
    descr = one(DTYPES)
    text = f"{{'descr': {descr if descr[0] in '[(' else repr(descr)}, 'fortran_order': "
    text += f"{one(('True', 'False', '2', 'None'))}, 'shape': {one(SHAPES)}, }}"
    body = text.encode("utf-8", "surrogatepass") + b" " * int(rng.integers(60)) + b"\n"
    version = one((1, 1, 1, 2, 3, 9))
    length = len(body) if rng.random() < 0.8 else int(rng.integers(2**16))
    return (
        b"\x93NUMPY" + bytes([version, 0]) + length.to_bytes(2 if version == 1 else 4, "little")
        + body + rng.bytes(int(rng.integers(300)))
    )  # fmt: skip


def mutated(rng: np.random.Generator, kept: list[bytes]) -> bytes:
    """One of the files, damaged in one of many ways."""
    data = bytearray(kept[rng.integers(len(kept))])
    way, number = int(rng.integers(7)), int(rng.integers(1, 9))
    if way == 0:  # bits anywhere
        for at in rng.integers(0, len(data), number):
            data[at] ^= 1 << rng.integers(8)
    elif way == 1:  # bytes in the headers and the directory
        starts = [at for at in range(len(data)) if data[at : at + 2] in (b"PK", b"\x93N", b"{'")]
        for _ in range(number):
            at = min(len(data) - 1, starts[rng.integers(len(starts))] + int(rng.integers(60)))
            data[at] = rng.integers(256)
    elif way == 2:
        del data[int(rng.integers(len(data))) :]
    elif way == 3:  # a piece is missing, or is there twice
        at = int(rng.integers(len(data)))
        data[at:at] = data[max(0, at - number * 9) : at] if rng.random() < 0.5 else b""
        del data[at : at + number]
    elif way in (4, 5) and data[:2] == b"PK":  # whole members anew
        stream = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(bytes(data))) as old, zipfile.ZipFile(stream, "w") as new:
            chosen = rng.integers(len(old.namelist()))
            for at, name in enumerate(old.namelist()):
                content = old.read(name)
                if at == chosen:
                    content = header(rng) if way == 4 else rng.bytes(int(rng.integers(200)))
                new.writestr(name, content, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED,
                    zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2)[int(rng.integers(4))])  # fmt: skip
        data = bytearray(stream.getvalue())
    elif way == 6:  # NaN and Inf, in files that are whole
        stream = io.BytesIO()
        vectors = VECTORS.copy()
        vectors[rng.integers(12), rng.integers(5)] = (np.nan, np.inf, 0, 3e38)[rng.integers(4)]
        np.savez(stream, embeddings=vectors, labels=LABELS * rng.choice([1, -1, 2**40]))
        data = bytearray(stream.getvalue())
    else:
        data = bytearray(header(rng))
    return bytes(data)


def survive(place: Path, count: int, seed: int) -> int:
    """Read mutated files; returns how many could be judged."""
    rng, kept = np.random.default_rng(seed), originals()
    judged, several_lines, longest = 0, 0, 0.0
    for _ in range(count):
        place.write_bytes(mutated(rng, kept))
        start = time.monotonic()
        try:
            found = load_embeddings(place, folders=True)
            normalise(found.embeddings)
            check_labels(found.labels, len(found.embeddings))
            judged += 1
        except UserError as error:
            several_lines += "\n" in str(error)
        longest = max(longest, time.monotonic() - start)
    assert several_lines == 0
    assert longest < 20  # seconds
    return judged


def test_mutated_files_end_in_one_line(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    judged = survive(tmp_path / "e.npz", 400, seed=0)
    assert 0 < judged < 300
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 500 * 1024  # KiB


# Doubts


def told_of(people: Embeddings) -> str:
    """What is told of them, one line each."""
    return "\n".join(
        [
            *embedding_warnings(people.embeddings, people.labels, people.names),
            *label_warnings(people.labels),
        ]
    )


def some(counts: list[int], noise: float = 0.5) -> Embeddings:
    rng = np.random.default_rng(2)
    labels = np.repeat(np.arange(len(counts)), counts)
    vectors = rng.normal(size=(len(counts), 8))[labels]
    vectors = vectors + rng.normal(scale=noise, size=vectors.shape)
    names = tuple(f"p{at}" for at in range(len(counts)))
    return Embeddings(vectors.astype(np.float32), labels, names, None, "drawn")


def test_no_doubt_where_there_is_none() -> None:
    assert told_of(some([6] * 32)) == ""


def test_the_same_lines_in_text_json_and_page(tmp_path: Path, evaluate: Callable[..., str]) -> None:
    people = some([5, 5, 5, 5, 5, 20])
    people.embeddings[:] = people.embeddings[0]
    save_embeddings(tmp_path / "e.npz", people)
    for command in ("roc", "identify", "people", "report"):
        given = ("--embeddings", tmp_path / "e.npz", "--out", tmp_path, "--resamples", 100)
        told = evaluate(command, *given[: 4 if command in ("identify", "people") else 6])
        lines = [line.removeprefix("note: ") for line in told.splitlines() if line[:6] == "note: "]
        text = "\n".join(lines)
        assert "COLLAPSED: all 45 embeddings are one and the same vector" in text, command
        assert "p5 has 20 of 45 pictures and 79% of the genuine pairs" in text, command
        assert "6 people are too few to say" in text, command
        assert "rough below" not in text  # one line for one thing
        if command in ("roc", "identify"):
            assert json.loads((tmp_path / f"{command}.json").read_text("utf-8"))["notes"] == lines
        if command == "report":
            page = html.unescape((tmp_path / "report.html").read_text("utf-8"))
            assert all(line in page for line in lines)


def test_few_people_and_few_pairs() -> None:
    told = told_of(some([5] * 6))
    assert "6 people are too few to say" in told
    assert "60 genuine pairs are too few to say" in told


def test_collapsed_embeddings(tmp_path: Path, evaluate: Callable[..., str]) -> None:
    people = some([6] * 32)
    people.embeddings[:] = people.embeddings[0] * np.arange(1, 193)[:, None]  # one direction
    assert "COLLAPSED: all 192 embeddings are one and the same vector" in told_of(people)
    save_embeddings(tmp_path / "a.npz", people)
    save_embeddings(tmp_path / "b.npz", some([6] * 32))
    more = ("--out", tmp_path, "--resamples", 0)
    assert "note: A: COLLAPSED" in evaluate(
        "compare", tmp_path / "a.npz", tmp_path / "b.npz", *more
    )
    both = ("--embeddings", tmp_path / "b.npz", "--against", tmp_path / "a.npz")
    assert "note: a (B): COLLAPSED" in evaluate("report", *both, *more)


def test_a_nearly_collapsed_model_still_ranks_and_is_not_called_collapsed() -> None:
    people = some([6] * 32)
    people.embeddings[:] = people.embeddings * 1e-3 + 1
    assert told_of(people) == ""


def test_one_embedding_for_many_people() -> None:
    people = some([6] * 32)
    people.embeddings[::12] = 1.0  # where no face was found
    assert "16 of 192 embeddings are exactly those of another person's" in told_of(people)


def test_six_people_under_one_name() -> None:
    people = some([6] * 40)
    people.labels[people.labels < 6] = 0
    told = told_of(people)
    assert "p0 has 36 of 240 pictures and 55% of the genuine pairs" in told


def test_a_crop_that_cuts_nothing_off(trained: Path, evaluate: Callable[..., str]) -> None:
    told = evaluate("roc", "--data", "others", "--crop", 4000, "--out", "o")
    assert "`crop` 4000: none of the 32 pictures is as large" in told
    assert any(
        "`crop` 4000" in line for line in json.loads(Path("o/roc.json").read_text())["notes"]
    )
    assert "`crop`" not in evaluate("roc", "--data", "others", "--crop", 8, "--out", "o")
    with pytest.raises(UserError, match="`target_fmr`"):
        evaluate("threshold", "--target-fmr", 1e-3)
    told = evaluate("threshold", "--target-fmr", 0.3)
    assert "validation people: 6 validation" not in told
    assert "note: validation people: 6 people are too few" in told
    assert "note: checked people: 5 people are too few" in told
    written = json.loads(Path("runs/run/threshold.json").read_text("utf-8"))
    assert any("6 people are too few" in note for note in written["notes"])


def test_a_collapsed_checkpoint_gets_no_threshold(
    trained: Path, evaluate: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from siamese.report import threshold_choice

    before = Path("checkpoints/run/best.pt").read_bytes()
    embed_folder = threshold_choice.embed_folder

    def collapsed(*arguments: Any) -> Embeddings:
        people = embed_folder(*arguments)
        people.embeddings[:] = people.embeddings[0]
        return people

    monkeypatch.setattr(threshold_choice, "embed_folder", collapsed)
    with pytest.raises(UserError, match="has collapsed, all 30 validation pictures"):
        evaluate("threshold", "--target-fmr", 0.3)
    assert Path("checkpoints/run/best.pt").read_bytes() == before


def test_people_01_and_1_are_two(tmp_path):
    np.save(tmp_path / "e.npy", np.eye(6, dtype=np.float32))
    (tmp_path / "e.csv").write_text("label\n" + "01\n1\n" * 3)
    found = load_embeddings(tmp_path / "e.npy", tmp_path / "e.csv")
    assert found.names == ("01", "1")
    assert found.labels.tolist() == [0, 1] * 3
