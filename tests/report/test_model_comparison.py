"""Two models on the same pictures: the difference is paired."""

import json
from pathlib import Path

import numpy as np
import pytest

from siamese.errors import UserError
from siamese.report.embedding_files import save_embeddings
from siamese.report.embedding_sources import Embeddings


def write(path: Path, noise: float, *, order: np.ndarray | None = None, paths: bool = True) -> Path:
    """40 people with 6 pictures; `noise` decides how good the model is."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(40), 6)
    centres = rng.normal(size=(40, 16))
    vectors = centres[labels] + noise * rng.normal(size=(240, 16))
    order = np.arange(240) if order is None else order
    names = tuple(f"人{k}" for k in range(40))
    files = tuple(f"人{labels[k]}/{k}.jpg" for k in order) if paths else None
    people = Embeddings(vectors[order].astype(np.float32), labels[order], names, files, str(path))
    save_embeddings(path, people)
    return path


def judged() -> dict:
    file = max(
        Path("runs").glob("compare-*/compare.json"), key=lambda path: path.stat().st_mtime_ns
    )
    return json.loads(file.read_text("utf-8"))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_better_model_is_said_to_be_better(tmp_path: Path, evaluate) -> None:
    good, bad = write(tmp_path / "good.npz", 0.8), write(tmp_path / "bad.npz", 1.4)
    told = evaluate("compare", "good.npz", "bad.npz")
    auc = judged()["differences"]["auc"]
    assert auc["difference"] == pytest.approx(judged()["b"]["auc"] - judged()["a"]["auc"])
    assert auc["interval"][1] < 0
    assert auc["verdict"] == "A is better"
    assert judged()["differences"]["eer"]["verdict"] == "A is better"
    evaluate("compare", "--b", good, "--a", bad)
    assert judged()["differences"]["auc"]["verdict"] == "B is better"
    assert "A is better" in told


def test_equal_models_and_a_finer_difference_than_either_interval(tmp_path: Path, evaluate) -> None:
    write(tmp_path / "a.npz", 1.0)
    write(tmp_path / "b.npz", 1.0, order=np.random.default_rng(1).permutation(240))
    evaluate("compare", "a.npz", "b.npz")
    auc = judged()["differences"]["auc"]
    assert auc["difference"] == pytest.approx(0, abs=1e-9)
    assert auc["interval"] == pytest.approx([0, 0], abs=1e-6)
    assert auc["verdict"] == "no difference shown"
    write(tmp_path / "b.npz", 1.02)
    evaluate("compare", "a.npz", "b.npz")
    low, high = judged()["differences"]["auc"]["interval"]
    evaluate("roc", "--embeddings", "a.npz", "--out", "o")
    own = json.loads(Path("o/roc.json").read_text("utf-8"))["intervals"]["auc"]
    assert high - low < (own[1] - own[0]) / 5  # pairing cancels what both share


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a.npz",), "two models are needed"),
        (("a.npz", "nowhere.npz"), "--b nowhere.npz: no such checkpoint or embeddings"),
        (("a.npz", "few.npz"), "1 are in one of them only"),
        (("a.npz", "nopaths.npz"), None),
        (("a.npz", "shuffled.npz"), "other labels, and no paths"),
        (("a.npz", "b.npz", "--checkpoint", "a.npz"), "name both models instead"),
        (("a.npz", "renamed.npz"), "say otherwise who is on"),
        (("a.npz", "short.npz"), "short.npz: 240 labels for 239 embeddings"),
        (("a.npz", "scalar.npz"), r"scalar.npz: embeddings must be numbers of shape \(N, D\)"),
    ],
)
def test_pictures_must_be_the_same(
    tmp_path: Path, evaluate, arguments: tuple, message: str | None
) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.npz", 1.0)
    write(tmp_path / "few.npz", 1.0, order=np.arange(239))
    write(tmp_path / "nopaths.npz", 1.0, paths=False)
    write(tmp_path / "shuffled.npz", 1.0, order=np.arange(240)[::-1], paths=False)
    with np.load("a.npz") as file:
        arrays = dict(file)
    arrays["labels"] = arrays["labels"] // 2
    np.savez("renamed.npz", **arrays)
    np.savez("short.npz", **{**dict(np.load("a.npz")), "embeddings": arrays["embeddings"][1:]})
    np.savez("scalar.npz", **{**dict(np.load("a.npz")), "embeddings": np.float32(1)})
    if message is None:
        assert "no difference shown" in evaluate("compare", *arguments)
        return
    with pytest.raises(UserError, match=message):
        evaluate("compare", *arguments)


def test_two_checkpoints(trained: Path, evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    told = evaluate(
        *("compare", "checkpoints/run/best.pt", "checkpoints/run", "--data", "others"),
        *("--out", "c"),
    )
    result = json.loads(Path("c/compare.json").read_text("utf-8"))
    assert result["a"]["auc"] == result["b"]["auc"]
    assert "(unsupported)" in told


def test_a_gallery_of_a_few_people_is_told_in_text_page_and_figure(
    tmp_path: Path, evaluate
) -> None:
    whole = dict(np.load(write(tmp_path / "all.npz", 1.0), allow_pickle=False))
    few = np.isin(whole["labels"], [0, 1])
    per_image = {name for name, array in whole.items() if array.shape[:1] == (240,)}
    np.savez("two.npz", **{n: a[few] if n in per_image else a for n, a in whole.items()})
    told = evaluate("identify", "--embeddings", "two.npz", "--out", "o")
    assert "note: CMC and open set: no line is drawn: 2 enrolled people are too few" in told
    assert "2 enrolled people are too few" in str(
        json.loads(Path("o/identify.json").read_text("utf-8"))["notes"]
    )
    evaluate("report", "--embeddings", "two.npz", "--out", "o")
    page = Path("o/report.html").read_text("utf-8")
    assert "no line is drawn: 2 enrolled people are too few" in page
