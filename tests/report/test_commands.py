"""siamese-eval's judgements of one model: lists of pairs, people, identification."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from siamese.errors import UserError
from siamese.report.sources import load_embeddings
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
    assert "the checkpoint has no threshold yet" in told


def test_crop_takes_the_centre(trained: Path, evaluate) -> None:
    def embeddings(*arguments: object) -> np.ndarray:
        evaluate("embed", "--data", "others", "--out", "e.npz", *arguments)
        return load_embeddings(Path("e.npz")).embeddings

    whole = embeddings()
    assert not np.allclose(embeddings("--crop", 20), whole, atol=1e-3)
    np.testing.assert_allclose(embeddings("--crop", 20), embeddings("--crop", 0.5), atol=1e-5)
    with pytest.raises(UserError, match=r"--crop 20\.5: must be a share"):
        embeddings("--crop", 20.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pairs",), "needs --pairs FILE"),
        (("pairs", "--pairs", "nowhere.csv", "--data", "others"), "nowhere.csv: no such file"),
        (("pairs", "--pairs", "p.csv"), "folder of the pictures with --data"),
        (("pairs", "--pairs", "bad.csv", "--data", "others"), "bad.csv.*line 3"),
        (("roc", "--pairs", "p.csv", "--data", "others", "--target", "a"), "--target"),
        (("roc", "--pairs", "p.csv", "--data", "others", "--part", "test"), "--part"),
        (("roc", "--pairs", "p.csv", "--embeddings", "p.csv"), "not --embeddings"),
        (("roc", "--resamples", 5), "--resamples 5: must be 0, or from 100 to 10000"),
        (("roc", "--resamples", 20_000), "--resamples 20000: must be 0, or from 100 to 10000"),
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
