"""siamese-eval's judgements of one model: lists of pairs, people, identification."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from siamese.errors import UserError
from siamese.report.embedding_files import load_embeddings
from siamese.verification.identification import identify
from siamese.verification.scores import listed_scores, normalise


def write_csv(path: Path, rows: list[tuple[str, str, int]]) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("path_a", "path_b", "same"), *rows])
    return path


PAIRS = [
    ("a/0.png", "a/1.png", 1),
    ("b/0.png", "b/3.png", 1),
    ("a/0.png", "b/0.png", 0),
    ("c/1.png", "d/2.png", 0),
    ("e/0.png", "b/3.png", 0),
]


def test_a_csv_of_pairs(trained: Path, evaluate) -> None:
    write_csv(trained / "p.csv", [*PAIRS, ("a/9.png", "a/1.png", 1)])
    evaluate("threshold", "--target-fmr", 0.3)
    told = evaluate("pairs", "--pairs", "p.csv", "--data", "others", "--out", "o")
    assert "1 pictures of the list are missing in others, 1 pairs left out: a/9.png" in told
    assert "2 genuine pairs, 3 impostor pairs" in told
    assert "unsupported: 3 pairs of people support FAR >= 1.0e+00" in told
    evaluate("embed", "--data", "others", "--out", "e.npz")
    people = load_embeddings(Path("e.npz"))
    at = {path: i for i, path in enumerate(people.paths or ())}
    first, second = ([at[pair[k]] for pair in PAIRS] for k in (0, 1))
    scores = listed_scores(normalise(people.embeddings), first, second)
    with open("o/pairs.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["path_a"], row["path_b"], int(row["same"])) for row in rows] == PAIRS
    np.testing.assert_allclose([float(row["score"]) for row in rows], scores, atol=1e-5)
    result = json.loads(Path("o/pairs.json").read_text("utf-8"))
    decision = result["decision"]
    line = decision["calibration"]
    expected = line["slope"] * scores + line["offset"]
    np.testing.assert_allclose([float(row["llr"]) for row in rows], expected, rtol=1e-3, atol=1e-3)
    right = [(score >= decision["threshold"]) == same for score, (_, _, same) in zip(
        scores, PAIRS, strict=True)]  # fmt: skip
    assert result["list"]["accuracy_at_own_threshold"] == pytest.approx(np.mean(right))
    assert f"accuracy {np.mean(right):.4f} at the checkpoint's own threshold" in told
    assert set(result["intervals"]) >= {"auc", "eer", "tar_at_far_1e-2"}
    drawn = evaluate("det", "--pairs", "p.csv", "--data", "others", "--out", "o")
    assert Path("o/det.png").exists()
    assert "o/det.json" in drawn


def test_ten_folds_and_one_fold_of_lfw(
    trained: Path, evaluate, draw_people: Callable[..., Path]
) -> None:
    names = ["Ann_B", "Cy_D", "夏_子"]
    for name in names:
        (trained / "lfw" / name).mkdir(parents=True)
    draw_people(trained / "drawn", names, images=6)
    for name in names:
        for k in range(6):
            (trained / "drawn" / name / f"{k}.png").rename(
                trained / "lfw" / name / f"{name}_{k + 1:04d}.png"
            )
    lines = ["2\t2"]
    for k in (1, 3):
        lines += [f"Ann_B\t{k}\t{k + 1}", f"Cy_D\t{k}\t{k + 1}"]
        lines += [f"Ann_B\t{k}\tCy_D\t{k}", f"Cy_D\t{k}\t夏_子\t{k}"]
    Path("pairs.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    told = evaluate("pairs", "--pairs", "pairs.txt", "--data", "lfw")
    assert "(standard error over 2 folds, threshold chosen on the others)" in told
    folds = json.loads(Path("runs/run/eval-lfw-pairs/pairs.json").read_text("utf-8"))["list"]
    assert len(folds["fold_accuracy"]["accuracies"]) == 2
    mean, error = folds["fold_accuracy"]["mean"], folds["fold_accuracy"]["standard_error"]
    a, b = folds["fold_accuracy"]["accuracies"]
    assert mean == pytest.approx((a + b) / 2)
    assert error == pytest.approx(abs(a - b) / 2)  # sqrt((d^2 / 2) / 1) / sqrt(2)
    one = ["2", "Ann_B\t1\t2", "Cy_D\t1\t2", "Ann_B\t1\tCy_D\t1", "Cy_D\t3\t夏_子\t3"]
    Path("one.txt").write_text("\n".join(one) + "\n", encoding="utf-8")
    told = evaluate("pairs", "--pairs", "one.txt", "--data", "lfw")
    assert "no threshold of a model" in told


def naive_fold_accuracy(scores: np.ndarray, same: np.ndarray, folds: int) -> np.ndarray:
    """LFW's accuracy of each fold by loops: the threshold of the most right pairs of the others."""
    fold = np.repeat(np.arange(folds), len(scores) // folds)
    found = []
    for own in range(folds):
        ordered = np.unique(scores)
        tried = [ordered[0], *(ordered[1:] + ordered[:-1]) / 2, np.nextafter(ordered[-1], 9)]
        others = fold != own
        right = [int(((scores >= t) == same)[others].sum()) for t in tried]
        best = [t for t, count in zip(tried, right, strict=True) if count == max(right)]
        # Every threshold between two best ones that the others cannot tell apart may be chosen.
        found.append([((scores >= t) == same)[fold == own].mean() for t in best])
    return np.array([(min(one), max(one)) for one in found])


def lfw_of_another_system(place: Path, folds: int = 10, each: int = 30) -> tuple:
    """An LFW list, embeddings with absolute aligned paths, and scores and truths by hand."""
    rng = np.random.default_rng(3)
    names = [f"Ann {chr(65 + at % 26)}_{at}" for at in range(60)]
    centres = rng.normal(size=(60, 8))
    paths, vectors = [], {}
    for at, name in enumerate(names):
        for number in range(1, 13):
            vectors[name, number] = centres[at] + rng.normal(scale=0.9, size=8)
            paths.append(f"/data/lfw_aligned/{name}/{name}_{number:04d}_0.png")
    lines, scores, seen = [f"{folds}\t{each}"], [], set()
    while len(lines) <= folds * 2 * each:
        same = (len(lines) - 1) // each % 2 == 0
        a, b = rng.choice(60, 2, replace=False)
        i, j = rng.choice(np.arange(1, 13), 2, replace=False)
        one, other = (names[a], int(i)), (names[a if same else b], int(j))
        if (key := tuple(sorted((one, other)))) in seen:
            continue
        seen.add(key)
        lines.append(f"{names[a]}\t{i}\t{j}" if same else f"{names[a]}\t{i}\t{names[b]}\t{j}")
        u, v = vectors[one], vectors[other]
        scores.append(u @ v / np.linalg.norm(u) / np.linalg.norm(v))
    (place / "pairs.txt").write_text("\n".join(lines), encoding="utf-8")
    np.savez(place / "lfw.npz", features=np.array(list(vectors.values())), paths=np.array(paths))
    return np.array(scores), np.tile(np.repeat([True, False], each), folds)


def test_lfws_protocol_on_another_systems_embeddings(
    tmp_path: Path, evaluate: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    scores, same = lfw_of_another_system(tmp_path)
    told = evaluate("pairs", "--pairs", "pairs.txt", "--embeddings", "lfw.npz", "--resamples", 0)
    assert "features taken as the embeddings; no labels: the folders of the paths" in told
    assert "pictures found in deeper folders, aligned" in told
    assert "300 genuine pairs, 300 impostor pairs" in told
    result = json.loads(Path("runs/eval-lfw-pairs/pairs.json").read_text("utf-8"))
    accuracies = np.array(result["list"]["fold_accuracy"]["accuracies"])
    limits = naive_fold_accuracy(scores, same, 10)
    assert (accuracies >= limits[:, 0] - 1e-9).all()
    assert (accuracies <= limits[:, 1] + 1e-9).all()
    assert f"accuracy {accuracies.mean():.4f} +- " in told
    assert 0.6 < accuracies.mean() < 0.99
    with open("runs/eval-lfw-pairs/pairs.csv", encoding="utf-8", newline="") as file:
        written = [float(row["score"]) for row in csv.DictReader(file)]
    np.testing.assert_allclose(written, scores, atol=2e-6)


def test_embeddings_that_cannot_be_found_by_a_list(
    tmp_path: Path, evaluate: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lfw_of_another_system(tmp_path)
    with np.load(tmp_path / "lfw.npz") as file:
        vectors, paths = file["features"], file["paths"]
    arguments = ("pairs", "--pairs", tmp_path / "pairs.txt", "--embeddings", tmp_path / "e.npz")
    np.savez(tmp_path / "e.npz", features=vectors, labels=np.arange(len(vectors)) // 12)
    with pytest.raises(UserError, match=r"e\.npz: has no paths, so nobody knows"):
        evaluate(*arguments)
    np.savez(tmp_path / "e.npz", features=vectors)
    with pytest.raises(UserError, match=r"e\.npz: has no array 'labels'"):
        evaluate(*arguments)
    np.savez(
        tmp_path / "e.npz", features=vectors, paths=np.char.add("x", np.arange(720).astype(str))
    )
    with pytest.raises(
        UserError, match=r"none of its 600 pairs .*e\.npz \(not there: 'Ann .*, \.\.\.\)"
    ):
        evaluate(*arguments)
    np.savez(tmp_path / "e.npz", features=vectors[:700], paths=paths[:700])
    assert "pairs left out: Ann" in evaluate(*arguments, "--resamples", 0)


def test_crop_takes_the_centre(trained: Path, evaluate) -> None:
    def embeddings(*arguments: object) -> np.ndarray:
        evaluate("embed", "--data", "others", "--out", "e.npz", *arguments)
        return load_embeddings(Path("e.npz")).embeddings

    whole = embeddings()
    assert not np.allclose(embeddings("--crop", 20), whole, atol=1e-3)
    np.testing.assert_allclose(embeddings("--crop", 20), embeddings("--crop", 0.5), atol=1e-5)
    assert np.array_equal(embeddings("--crop", "whole"), whole)
    with pytest.raises(UserError, match=r"`crop` 20\.5: must be a share"):
        embeddings("--crop", 20.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pairs",), "--pairs is missing"),
        (("pairs", "--pairs", "nowhere.csv", "--data", "others"), "nowhere.csv: no such file"),
        (("pairs", "--pairs", "p.csv"), "folder of the pictures with `data`"),
        (("pairs", "--pairs", "bad.csv", "--data", "others"), "bad.csv.*line 3"),
        (("roc", "--pairs", "p.csv", "--data", "others", "--target", "a"), "`target`"),
        (("roc", "--pairs", "p.csv", "--data", "others", "--part", "test"), "`part`"),
        (("roc", "--pairs", "p.csv", "--embeddings", "p.csv"), "p.csv: is not a readable .npz"),
        (("roc", "--data", "others", "--labels", "p.csv"), "`labels`: .* `embeddings`"),
        (("roc", "--embeddings", "p.csv", "--embeddings_limit", 0), "GiB above 0"),
        (("roc", "--resamples", 5), "`resamples` 5: must be 0, or from 100 to 10000"),
        (("roc", "--resamples", 20_000), "`resamples` 20000: must be 0, or from 100 to 10000"),
        (("roc", "--out", "p.csv"), "--out p.csv: is a file"),
        (("identify", "--gallery", 9), "nobody has more than 9 image"),
        (("identify", "--fusion", "sum"), "must be one of max, mean"),
        (("roc", "--target", "nobody", "--data", "others"), "nobody of that name among 8"),
        (("roc", "--data", "others", "--out", "p.csv/o"), "p.csv is a file, not a folder"),
    ],
)
def test_bad_input(trained: Path, evaluate, arguments: tuple, message: str) -> None:
    write_csv(trained / "p.csv", PAIRS)
    write_csv(trained / "bad.csv", PAIRS[:1])
    with open("bad.csv", "a", encoding="utf-8") as file:
        file.write("a/0.png,b/0.png,perhaps\n")
    with pytest.raises(UserError, match=message):
        evaluate(*arguments)
    assert not Path("runs/run/eval-others").exists()


def test_people_of_a_list_whose_folders_are_no_people(trained: Path, evaluate) -> None:
    Path("flat/all").mkdir(parents=True)
    for path in Path("others").glob("*/*.png"):
        shutil.copy(path, f"flat/all/{path.parent.name}_{path.name}")
    nested = evaluate("pairs", "--pairs", write_csv(trained / "p.csv", PAIRS), "--data", "others")
    flat = [(f"all/{a.replace('/', '_')}", f"all/{b.replace('/', '_')}", s) for a, b, s in PAIRS]
    told = evaluate("pairs", "--pairs", write_csv(trained / "f.csv", flat), "--data", "flat")
    auc = [line for line in nested.splitlines() if line.startswith("AUC")]
    assert auc[0].split("[")[0] in told
    assert "1 identities" not in told


def test_people_by_harm(trained: Path, evaluate) -> None:
    told = evaluate("people", "--data", "others", "--threshold", 0.5)
    assert "8 people; at threshold 0.5000 (given): FMR " in told
    with open("runs/run/eval-others/people.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["person"] for row in rows} == {*"abcdefg", "人0 x"}
    harm = [float(row["harm"]) for row in rows]
    assert harm == sorted(harm, reverse=True)
    assert sum(harm) == pytest.approx(1, abs=1e-4)
    assert all(row["nearest_other"] != row["person"] for row in rows)
    assert all(row["images"] == "4" for row in rows)


def test_identification(trained: Path, evaluate) -> None:
    told = evaluate("identify", "--data", "others", "--gallery", 2, "--fusion", "mean")
    result = json.loads(Path("runs/run/eval-others/identify.json").read_text("utf-8"))
    assert [one["images_per_person"] for one in result["galleries"]] == [1, 2]
    evaluate("embed", "--data", "others", "--out", "e.npz")
    people = load_embeddings(Path("e.npz"))
    direct = identify(people.embeddings, people.labels, images_per_person=2, fusion="mean")
    second = result["galleries"][1]
    assert second["rank_1"] == pytest.approx(direct.cmc[0])
    assert second["fnir_at_fpir_0.1"] == pytest.approx(direct.fnir_at(0.1))
    assert second["rank_10"] == pytest.approx(1)  # 8 people
    assert f"rank-1 {direct.cmc[0]:.4f}" in told
    assert f"MAP@R {result['map_at_r']:.4f}" in told
    assert "2 enrolled (mean): 8 people, 16 probes" in told
    assert "rank-10" not in told  # of eight people everybody is among the first ten
    evaluate("report", "--data", "others")
    page = Path("runs/run/eval-others/report.html").read_text("utf-8")
    assert f"{result['galleries'][0]['rank_1']:.4f}" in page  # one figure, whoever tells it
    for name in ("cmc.png", "cmc.svg", "cmc.pdf", "open_set.png"):
        assert Path("runs/run/eval-others", name).stat().st_size > 3000


@pytest.mark.real_faces
def test_lfw_development_list(real_faces: Path, trained: Path, evaluate) -> None:
    lfw = real_faces.parent / "lfw_devtest"
    told = evaluate("pairs", "--pairs", lfw / "pairsDevTest.txt", "--data", lfw, "--crop", 150)
    assert "500 genuine pairs, 500 impostor pairs" in told
    assert "missing" not in told
