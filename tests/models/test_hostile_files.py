"""Files that lie about their sizes, and checkpoints with any of their values changed."""

import copy
import os
import pickle
import random
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from siamese.config import LimitSettings
from siamese.errors import UserError
from siamese.models.checkpoint import FORMAT, KEYS, newest_best, read_checkpoint, write_checkpoint
from siamese.models.embedder import EmbedderSpec, SiameseEmbedder
from siamese.models.inference import load_embedder
from siamese.models.loading import load_start_weights
from siamese.tasks.classes.classifier import ClassifierSpec, load_classifier
from siamese.verification.calibration import Calibration
from siamese.verification.decision import Decision

MIB = 2**20


def _common() -> dict[str, Any]:
    part = {"folder": "faces", "identities": ["a", "夏子"], "pictures": 3}
    listed = part | {"listed": {"a": ["a/1.png"], "夏子": ["夏子/1.png", "夏子/2.png"]}}
    return {key: {} for key in KEYS} | {
        "train_weights": [torch.zeros(3)],
        "random": {"cpu": torch.get_rng_state(), "cuda": []},
        "progress": {"epoch": 1, "batch": 0, "seconds": 1.5, "best": float("nan")},
        "settings": {"data": None, "trainer": {"precision": "auto"}},
        "split": {"train": dict(part), "validation": listed},
        "figures": {"auc": 0.75, "genuine_pairs": 12},
        "versions": {"torch": "2"},
    }


@pytest.fixture(scope="module")
def contents() -> dict[str, dict[str, Any]]:
    """A checkpoint of each kind."""
    torch.manual_seed(0)
    spec = EmbedderSpec("test_resnet", 8, 32, "crop", (0.4, 0.4, 0.4), (0.2, 0.2, 0.2))
    embedder = SiameseEmbedder("test_resnet", 8)
    decision = Decision(0.4, 0.1, Calibration(3.0, -1.0), False, {"fmr": 0.1}, {})
    classes = ("a", "b", "c")
    network = ClassifierSpec("resnet8", {}, 0.0, classes, 1, 28, 28, 1.0, (0.1,), (0.3,))
    return {
        "embedder": _common()
        | {"embedder": spec.as_dict(), "model": embedder.state_dict()}
        | {"decision": decision.as_dict()},
        "classifier": _common()
        | {"classifier": network.as_dict(), "model": network.build().state_dict()},
    }


@pytest.fixture
def best(tmp_path: Path, contents: dict[str, dict[str, Any]]) -> Path:
    write_checkpoint(tmp_path / "run" / "best.pt", contents["embedder"])
    return tmp_path / "run" / "best.pt"


def _load(path: Path, kind: str) -> None:
    """Every reader of a kind."""
    content = read_checkpoint(path, kind)
    if kind == "classifier":
        load_classifier(path)
        return
    embedder = load_embedder(path, "cpu")
    embedder.batch = 1
    embedder.embed(torch.zeros(3, 9, 9))
    if "decision" in content:
        try:
            Decision.from_dict(content["decision"])
        except (KeyError, TypeError, ValueError):  # what report.sources makes one line of
            raise UserError("its threshold cannot be used") from None


def _told(path: Path, kind: str) -> str | None:
    try:
        _load(path, kind)
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize("kind", ["embedder", "classifier"])
def test_whole_checkpoints_are_read(
    tmp_path: Path, contents: dict[str, dict[str, Any]], kind: str
) -> None:
    write_checkpoint(tmp_path / "best.pt", contents[kind])
    _load(tmp_path / "best.pt", kind)
    read = read_checkpoint(tmp_path / "best.pt", kind)
    for name, tensor in contents[kind]["model"].items():
        assert torch.equal(read["model"][name], tensor)
    only = read_checkpoint(tmp_path / "best.pt", kind, keys=["progress"])
    assert only["progress"] == read["progress"] or only["progress"]["best"] != 0
    assert not only.keys() & {"model", "optimizer", "train_weights"}


def _nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def _laughs() -> list[Any]:
    value: list[Any] = [0] * 10
    for _ in range(12):
        value = [value] * 10
    return value


def _endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


VALUES: list[Any] = [
    None, -5, 0, 1, 10**6, 10**9, 2**63 - 1, 2**70, 10**5000, 0.5, float("nan"), float("inf"),
    -float("inf"), 1e300, "", "x", "\0", "../../x", "a" * 100_000, "\udcff\x1b[31m", b"bytes", True,
    [], [1], [1, 2], ["a"], (1, 2), {}, {"a": 1}, {1: 2}, {(1, 2): 3}, _nested(200), _laughs(),
    _endless(), torch.zeros(2), torch.zeros(0), torch.zeros(1).expand(10**9), torch.float32,
    "vit_giant_patch14_dinov2", "timm/eva_giant_patch14_560", "zoo/densenet190_k40", "hf-hub:x/y",
    {"depth": 10**6}, {"checkpoint_path": "/dev/zero"}, {"blocks": [10**6] * 4},
]  # fmt: skip


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if at:
        yield at
    if isinstance(value, dict):
        for key in value:
            yield from _places(value[key], (*at, key))
    elif isinstance(value, list):
        for key in range(min(len(value), 2)):
            yield from _places(value[key], (*at, key))


def _changed(content: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """One value of a checkpoint replaced, taken away, or added; each part equally often."""
    places = list(_places(content))
    head = draw.choice(sorted({place[0] for place in places}))
    place = draw.choice([place for place in places if place[0] == head])
    changed = copy.copy(content)
    holder: Any = changed
    for key in place[:-1]:
        holder[key] = copy.copy(holder[key])
        holder = holder[key]
    way = draw.random()
    if way < 0.15:
        del holder[place[-1]]
    elif way < 0.25 and isinstance(holder, dict):
        holder["new"] = draw.choice(VALUES)
    else:
        holder[place[-1]] = draw.choice(VALUES)
    return changed


@pytest.mark.parametrize("seed", range(2))
def test_any_value_changed_works_or_is_one_line(
    tmp_path: Path, contents: dict[str, dict[str, Any]], seed: int
) -> None:
    draw, path = random.Random(seed), tmp_path / "best.pt"
    refused = 0
    for number in range(20):
        kind = draw.choice(sorted(contents))
        content = {"format": FORMAT, "version": 1, **_changed(contents[kind], draw)}
        torch.save(content, path)
        began = time.monotonic()
        told = _told(path, kind)
        refused += told is not None
        assert "\n" not in (told or ""), (seed, number)
        assert len(told or "") < 1000, (seed, number)
        assert time.monotonic() - began < 20, (seed, number)
    assert refused > 5


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("size", value) for value in (-5, 0, 10**6, float("nan"), 32.0, "32", True, None)],
        *[("mean", value) for value in ([0.5, 0.5], [0.5] * 4, 0.5, [0.5, 0.5, float("nan")])],
        *[("std", value) for value in ([-1.0] * 3, [0.0] * 3, [1e-30] * 3, [float("inf")] * 3)],
        *[("fit", value) for value in ("x", None, 3)],
        *[("embedding_dim", value) for value in (0, -1, 10**9, 8.5)],
        ("color_order", "BGR"),
        ("backbone", ["test_resnet"]),
        ("other", 1),
    ],
)
def test_a_description_that_cannot_be_is_named(
    tmp_path: Path, contents: dict[str, dict[str, Any]], field: str, value: Any
) -> None:
    content = contents["embedder"]
    content = content | {"embedder": content["embedder"] | {field: value}}
    write_checkpoint(tmp_path / "best.pt", content)
    with pytest.raises(UserError, match=r"best\.pt: is damaged, its embedder.* cannot be used"):
        load_embedder(tmp_path / "best.pt", "cpu")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("options", {"depth": 10**9}),
        ("options", {"x": [[[[[[1]]]]]]}),
        ("classes", []),
        ("classes", ["a", 3]),
        ("channels", 3),
        ("channels", 10**6),
        ("test_size", -5),
        ("test_crop", 0.0),
        ("drop_path", 1.0),
        ("mean", [0.5, 0.5]),
        ("std", [-1.0]),
    ],
)
def test_a_classifier_that_cannot_be_is_named(
    tmp_path: Path, contents: dict[str, dict[str, Any]], field: str, value: Any
) -> None:
    content = contents["classifier"]
    content = content | {"classifier": content["classifier"] | {field: value}}
    write_checkpoint(tmp_path / "best.pt", content)
    with pytest.raises(UserError, match=r"best\.pt: is damaged, its classifier.* cannot be used"):
        load_classifier(tmp_path / "best.pt")


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("embedder", "backbone", "vit_giant_patch14_dinov2"),
        ("embedder", "embedding_dim", 65536),
        ("classifier", "network", "timm/eva_giant_patch14_560"),
        ("classifier", "options", {"depth": 600_002}),
        ("classifier", "options", {"initial_channels": 10**6}),
    ],
)
def test_a_giant_network_costs_nothing(
    tmp_path: Path, contents: dict[str, dict[str, Any]], kind: str, field: str, value: Any
) -> None:
    """It took 4.9 GB and 45 s: shapes are compared before anything is allocated."""
    from resource import RUSAGE_SELF, getrusage

    content = contents[kind] | {kind: contents[kind][kind] | {field: value}}
    write_checkpoint(tmp_path / "best.pt", content)
    before, began = getrusage(RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(UserError):
        _load(tmp_path / "best.pt", kind)
    assert time.monotonic() - began < 20
    assert (getrusage(RUSAGE_SELF).ru_maxrss - before) / 1024 < 500  # MiB


def _repacked(path: Path, compression: int, change: Callable[[str, bytes], bytes]) -> None:
    with zipfile.ZipFile(path) as archive:
        records = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in records.items():
            archive.writestr(name, change(name, data))


def _refused_cheaply(path: Path, match: str, mib: float = 100) -> None:
    from resource import RUSAGE_SELF, getrusage

    before = getrusage(RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=match):
        read_checkpoint(path, limits=LimitSettings(description=32))
    assert (getrusage(RUSAGE_SELF).ru_maxrss - before) / 1024 < mib


def test_compressed_records_are_refused_unread(best: Path) -> None:
    """A deflated data.pkl of some megabytes took 8.5 GB."""
    bomb = b"\0" * (200 * MIB)
    _repacked(
        best, zipfile.ZIP_DEFLATED, lambda name, data: data + bomb * name.endswith("data.pkl")
    )
    assert best.stat().st_size < 8 * MIB
    _refused_cheaply(best, "not a readable")


def test_stored_records_of_another_program_are_read(best: Path) -> None:
    expected = read_checkpoint(best)["model"]
    _repacked(best, zipfile.ZIP_STORED, lambda _, data: data)
    found = read_checkpoint(best)["model"]
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def _pickled(best: Path, data: bytes) -> None:
    _repacked(
        best, zipfile.ZIP_STORED, lambda name, old: data if name.endswith("data.pkl") else old
    )


def _text(size: int) -> bytes:
    return b"X" + struct.pack("<I", size) + b"a" * size


@pytest.mark.parametrize(
    "many",
    [
        b"(" + b"]" * 600_000 + b"l.",  # empty lists
        b"(" + _text(MIB) + b"q\0" + b"h\0" * 300 + b"t.",  # no copies, but as many when written
        b"(ccollections\nOrderedDict\nq\1]q\2(" + b"N" * 50_000 + b"e"
        + b"h\1h\2\x85R" * 200 + b"l.",  # copies of one list
    ],
    ids=["lists", "references", "copies"],
)  # fmt: skip
def test_a_pickle_that_makes_much_of_little_is_refused(best: Path, many: bytes) -> None:
    _pickled(best, b"\x80\x02" + many)
    _refused_cheaply(best, r"best\.pt: (what it holds .* `limits.description`|is not a readable)")


def test_calls_that_no_weights_need_are_refused(best: Path) -> None:
    call = b"c_codecs\nencode\n" + _text(10) + b"X\x05\x00\x00\x00utf-8\x86R"
    _pickled(best, b"\x80\x02" + call + b".")
    _refused_cheaply(best, "not a readable")


def test_tensors_larger_than_their_data_are_refused(
    tmp_path: Path, contents: dict[str, dict[str, Any]]
) -> None:
    path = tmp_path / "best.pt"
    wide = {"weight": torch.zeros(1).expand(10**12)}
    write_checkpoint(path, contents["embedder"] | {"model": wide})
    with pytest.raises(UserError, match="not a readable"):
        read_checkpoint(path)
    base = torch.zeros(4 * MIB)
    many = {str(at): base[at:] for at in range(2000)}  # 32 GB of 16 MB
    write_checkpoint(path, contents["embedder"] | {"model": many})
    with pytest.raises(UserError, match="not a readable"):
        read_checkpoint(path)


def test_a_storage_that_claims_more_than_its_record_is_refused(
    tmp_path: Path, contents: dict[str, dict[str, Any]]
) -> None:
    path = tmp_path / "best.pt"
    write_checkpoint(path, contents["embedder"] | {"model": {"weight": torch.zeros(1000)}})

    def lie(name: str, data: bytes) -> bytes:
        if not name.endswith("data.pkl"):
            return data
        assert data.count(b"M\xe8\x03") >= 2  # 1000, as two bytes
        return data.replace(b"M\xe8\x03", b"J\x00\xca\x9a\x3b")  # a billion

    _repacked(path, zipfile.ZIP_STORED, lie)
    with pytest.raises(UserError, match="not a readable"):
        read_checkpoint(path)


def test_limits_are_settings(tmp_path: Path, contents: dict[str, dict[str, Any]]) -> None:
    path = tmp_path / "best.pt"
    names = [f"person {number}" for number in range(20_000)]
    part = contents["embedder"]["split"]["train"] | {"identities": names}
    write_checkpoint(path, contents["embedder"] | {"split": {"train": part}})
    assert read_checkpoint(path)["split"]["train"]["identities"] == names
    with pytest.raises(UserError, match=r"more than 1 MiB; .* raise `limits.description`"):
        read_checkpoint(path, limits=LimitSettings(description=1))
    small = LimitSettings(weights=1e-5)
    with pytest.raises(UserError, match=r"more than 1e-05 GiB; .* raise `limits.weights`"):
        read_checkpoint(path, limits=small)
    read_checkpoint(path, keys=["split"], limits=small)  # the weights are not read


@pytest.mark.parametrize("kind", ["fifo", "device", "folder"])
def test_only_files_are_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "run" / "best.pt"
    path.parent.mkdir()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(UserError, match=r"best\.pt: is a folder, device or pipe"):
        read_checkpoint(path)
    with pytest.raises(UserError, match=r"best\.pt: is a folder, device or pipe"):
        load_start_weights(SiameseEmbedder("test_resnet", 8), path)
    with pytest.raises(UserError, match="of faces yet"):  # it is passed over
        newest_best(tmp_path)


def test_start_weights_are_read_with_the_same_care(best: Path, tmp_path: Path) -> None:
    model = SiameseEmbedder("test_resnet", 8)
    load_start_weights(model, best)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    old = tmp_path / "old.pth"
    torch.save(state, old, _use_new_zipfile_serialization=False)
    load_start_weights(model, old)
    save_file(state, tmp_path / "w.safetensors")
    load_start_weights(model, tmp_path / "w.safetensors")
    small = LimitSettings(weights=1e-5)
    for file in (best, old, tmp_path / "w.safetensors"):
        with pytest.raises(UserError, match=r"`model.weights` .*`limits.weights`"):
            load_start_weights(model, file, small)
    _repacked(best, zipfile.ZIP_DEFLATED, lambda _, data: data)
    old.write_bytes(old.read_bytes()[:2000])
    giant = tmp_path / "giant.safetensors"
    header = b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'
    giant.write_bytes(struct.pack("<Q", len(header)) + header)
    endless = tmp_path / "endless.safetensors"
    endless.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    many = tmp_path / "many.pth"
    many.write_bytes(b"".join(map(pickle.dumps, [0, 0, 0])) + b"(" + b"]" * 50_000 + b"l.")
    for file in (best, old, giant, endless, many):
        with pytest.raises(UserError, match=rf"`model.weights` .*{file.name}: "):
            load_start_weights(model, file, LimitSettings(description=2))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_bytes_changed_at_random_end_in_one_line_or_work(best: Path, share: float) -> None:
    whole = best.read_bytes()
    draw = random.Random(share)
    for _ in range(15):
        damaged = bytearray(whole)
        for _ in range(draw.choice((1, 3, 30))):
            damaged[int(draw.random() ** 2 * len(damaged))] = draw.randrange(256)
        best.write_bytes(damaged[: None if draw.random() < 0.7 else int(share * len(whole))])
        assert "\n" not in (_told(best, "embedder") or "")
