"""The checkpoint file: whole or not at all, self-describing, and read without trust."""

import io
import os
import pickle
import resource
import signal
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from siamese import load_embedder
from siamese.errors import UserError
from siamese.models import checkpoint
from siamese.models.checkpoint import KEYS, newest_best, read_checkpoint, write_checkpoint
from siamese.models.embedder import EmbedderSpec, SiameseEmbedder


def _content(fill: float = 1.0) -> dict[str, Any]:
    content: dict[str, Any] = {key: {} for key in KEYS}
    content["embedder"] = EmbedderSpec(
        "test_resnet", 8, 32, "crop", (0.4,) * 3, (0.2,) * 3
    ).as_dict()
    content["model"] = {"weight": torch.full((50, 50), fill)}
    content["train_weights"] = []
    content["progress"] = {"epoch": 1}
    content["split"] = {"train": {"folder": "faces", "identities": ["a"], "pictures": 2}}
    return content


def test_round_trip_with_names_in_any_script(tmp_path: Path) -> None:
    content = _content()
    content["split"]["train"]["identities"] = ["夏子", "a b", "\udcff"]
    content["figures"] = {"auc": 0.75, "best": float("nan")}
    write_checkpoint(tmp_path / "run" / "best.pt", content)
    read = read_checkpoint(tmp_path / "run" / "best.pt")
    assert read["split"] == content["split"]
    assert torch.equal(read["model"]["weight"], content["model"]["weight"])


class _FailingFile(io.FileIO):
    """A disk that fails at the n-th write."""

    def __init__(self, path: Path, mode: str, fail_at: int) -> None:
        super().__init__(path, mode)
        self.left = fail_at

    def write(self, data: Any) -> int:
        self.left -= 1
        if self.left < 0:
            raise OSError("disk full")
        return super().write(data)


def test_a_crash_at_any_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "best.pt"
    write_checkpoint(path, _content(1.0))
    old = path.read_bytes()
    survived = 0
    for fail_at in range(10_000):
        monkeypatch.setattr(
            checkpoint,
            "open",
            lambda name, mode, at=fail_at: _FailingFile(name, mode, at),
            raising=False,
        )
        try:
            write_checkpoint(path, _content(2.0))
        except UserError:
            assert path.read_bytes() == old
            assert os.listdir(tmp_path) == ["best.pt"]
            survived += 1
        else:
            break
    assert survived > 3
    assert read_checkpoint(path)["model"]["weight"][0, 0] == 2.0


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_crash_around_the_rename_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "best.pt"
    write_checkpoint(path, _content(1.0))
    old = path.read_bytes()

    def fail(*args: Any) -> None:
        raise OSError("power cut")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(UserError, match=r"best\.pt: cannot be written \(power cut\)"):
        write_checkpoint(path, _content(2.0))
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["best.pt"]


def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path: Path) -> None:
    """On a real limit of the system: torch's own error speaks of positions in the file."""
    path = tmp_path / "last.pt"
    write_checkpoint(path, _content(1.0))
    old = path.read_bytes()
    large = {**_content(2.0), "model": {"weight": torch.zeros(2**20)}}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
    try:
        with pytest.raises(UserError, match=r"last\.pt: cannot be written \(File too large\)"):
            write_checkpoint(path, large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["last.pt"]


class _Hostile:
    def __reduce__(self) -> Any:
        return os.mkdir, ("pwned",)


def test_hostile_file_is_refused_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "best.pt"
    torch.save({"format": checkpoint.FORMAT, "version": 1, "model": _Hostile()}, path)
    with pytest.raises(UserError, match=r"best\.pt: is not a readable"):
        read_checkpoint(path)
    path.write_bytes(pickle.dumps(_Hostile()))
    with pytest.raises(UserError, match=r"best\.pt: is not a readable"):
        read_checkpoint(path)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "best.pt"
    write_checkpoint(path, _content())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match=r"best\.pt"):
        read_checkpoint(path)


def test_foreign_newer_and_damaged_files_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"model": {}}, path)
    with pytest.raises(UserError, match="not a siamese checkpoint"):
        read_checkpoint(path)
    torch.save({"format": checkpoint.FORMAT, "version": 99}, path)
    with pytest.raises(UserError, match="newer"):
        read_checkpoint(path)
    torch.save({"format": checkpoint.FORMAT, "version": 1, "model": {}}, path)
    with pytest.raises(UserError, match="lacks embedder"):
        read_checkpoint(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a", "b")
    with pytest.raises(UserError, match="not a readable"):
        read_checkpoint(path)
    with pytest.raises(UserError, match="no such checkpoint"):
        read_checkpoint(tmp_path / "nowhere.pt")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", 3),
        ("settings", []),
        ("train_weights", {}),
        ("progress", {"epoch": "two"}),
        ("split", {"train": {"folder": 1, "identities": [], "pictures": 2}}),
        ("split", {"train": {"folder": "x", "identities": [5], "pictures": 2}}),
    ],
)
def test_content_of_another_kind_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    path = tmp_path / "best.pt"
    write_checkpoint(path, _content() | {key: value})
    with pytest.raises(UserError, match=f"damaged.*{key}"):
        read_checkpoint(path)


def test_embedder_comes_back_without_timm_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = SiameseEmbedder("test_resnet", 8, mean=(0.4, 0.4, 0.4), std=(0.2, 0.2, 0.2)).eval()
    spec = EmbedderSpec("test_resnet", 8, 32, "crop", (0.4, 0.4, 0.4), (0.2, 0.2, 0.2))
    content = _content() | {"embedder": spec.as_dict(), "model": model.state_dict()}
    write_checkpoint(tmp_path / "best.pt", content)
    monkeypatch.setattr("timm.models._builder.load_pretrained", pytest.fail)
    loaded = load_embedder(tmp_path / "best.pt", device="cpu")
    pictures = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    assert not loaded.network.training
    # As it lies in memory when it is loaded: another layout rounds otherwise on some machines.
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert torch.equal(loaded.network(pictures), model(pictures))


def test_weights_that_do_not_fit_their_description_are_refused(tmp_path: Path) -> None:
    spec = EmbedderSpec("test_resnet", 16, 32, "squash", (0.5,) * 3, (0.5,) * 3)
    content = _content() | {"embedder": spec.as_dict()}
    write_checkpoint(tmp_path / "best.pt", content)
    with pytest.raises(UserError, match="do not fit"):
        load_embedder(tmp_path / "best.pt", device="cpu")


def test_newest_best_checkpoint_is_found(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="siamese-train"):
        newest_best(tmp_path)
    for number, name in enumerate(("b", "a", "c")):
        write_checkpoint(tmp_path / name / "best.pt", _content())
        os.utime(tmp_path / name / "best.pt", (100 - number, 100 - number))
    assert newest_best(tmp_path) == tmp_path / "b" / "best.pt"


def test_the_newest_checkpoint_of_faces_is_found_behind_a_classifier(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "faces" / "best.pt", _content())
    content = _content()
    del content["embedder"]
    content["classifier"] = {"network": "preact20"}
    write_checkpoint(tmp_path / "classes" / "best.pt", content)
    assert newest_best(tmp_path) == tmp_path / "faces" / "best.pt"
