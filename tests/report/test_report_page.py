"""The report of a trained run: what stands on the page."""

import html
import re
from pathlib import Path

import numpy as np
import pytest

from siamese.report.embedding_files import save_embeddings
from siamese.report.embedding_sources import Embeddings


def text_of(path: Path) -> str:
    return html.unescape(path.read_text("utf-8"))


def test_everything_is_on_one_page(trained: Path, evaluate) -> None:
    told = evaluate("report", "--data", "others", "--out", "o", "--shown", 5)
    assert "o/report.html" in told
    page = text_of(trained / "o/report.html")
    for title in ("ROC", "Precision and recall", "DET", "Scores", "CMC", "Open set", "Reliability"):
        assert title in page
    assert page.count("data:image/svg+xml;base64,") >= 7
    # Five worst pairs of each kind, two pictures each.
    assert page.count("data:image/jpeg;base64,") == 20
    assert "人0 x" in page
    assert "8 people, 32 pictures" in page
    assert re.search(r"AUC.*?0\.\d{4}", page, re.S)
    assert "unsupported" in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)


def test_embeddings_of_a_file_bring_their_pictures(trained: Path, evaluate) -> None:
    evaluate("embed", "--data", "others", "--out", "e.npz")
    evaluate("report", "--embeddings", "e.npz", "--out", "o", "--shown", 3)
    assert text_of(trained / "o/report.html").count("data:image/jpeg;base64,") == 12
    (trained / "others").rename(trained / "gone")
    evaluate("report", "--embeddings", "e.npz", "--out", "o", "--shown", 3)
    assert "not available" in text_of(trained / "o/report.html")


def test_two_models_side_by_side(trained: Path, evaluate) -> None:
    evaluate("threshold", "--target-fmr", 0.3)
    told = evaluate("report", "--against", "checkpoints/run/last.pt", "--part", "test")
    page = text_of(trained / "runs/run/eval-test/report.html")
    assert "Two models side by side" in page
    assert "Against run-last (B): AUC" in told
    assert "the checkpoint's own, for FMR 0.3" in page


def test_a_folder_with_strangers_is_named(
    tmp_path: Path, evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(40), 30)
    centres = rng.normal(size=(40, 32))
    shown = centres[labels]
    shown[:6] = rng.normal(size=(6, 32))
    vectors = (shown + 0.6 * rng.normal(size=shown.shape)).astype(np.float32)
    names = ("夏子", *(f"p{k}" for k in range(39)))
    save_embeddings(tmp_path / "e.npz", Embeddings(vectors, labels, names, None, "x"))
    told = evaluate("report", "--embeddings", tmp_path / "e.npz", "--out", tmp_path / "o")
    assert re.search(r"about (1\d|2\d)% of \u2068夏子\u2069's pictures look like someone", told)
    page = text_of(tmp_path / "o/report.html")
    assert "夏子" in page
    # Beside the name, where no window is too narrow for it.
    assert (
        page.index("pictures</bdi>") < page.index("wrong pictures</bdi>") < page.index("harm</bdi>")
    )
    found = evaluate("roc", "--embeddings", tmp_path / "e.npz", "--target", "夏子")
    assert "the signature of mislabelled folders" in found
    assert "signature" not in evaluate("roc", "--embeddings", tmp_path / "e.npz", "--target", "p3")


@pytest.mark.parametrize("images", [1, 2])
def test_without_names_paths_or_second_pictures(tmp_path: Path, evaluate, images: int) -> None:
    labels = np.r_[np.repeat(np.arange(5), images), [0]]
    vectors = np.random.default_rng(0).normal(size=(len(labels), 4)).astype(np.float32)
    np.savez(tmp_path / "e.npz", embeddings=vectors, labels=labels)
    evaluate("report", "--embeddings", tmp_path / "e.npz", "--out", tmp_path / "o")
    page = text_of(tmp_path / "o/report.html")
    assert ("CMC" in page) == (images > 1)
