"""Fitted scorings: the maps by the densities they come from, the commands, and what follows."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import multivariate_normal
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_auc_score
from sklearn.metrics.pairwise import cosine_similarity

from siamese import Embedder
from siamese.auditing.two_covariance import TwoCovariance, fit
from siamese.config import AuditSettings, CurveSettings, FittedName, check_evaluation
from siamese.errors import UserError
from siamese.models.checkpoint import read_checkpoint, update_checkpoint, write_checkpoint
from siamese.models.scoring import Baked, FittedOn, ScoringMap
from siamese.report.scoring_maps import fit_map, weighted_axes
from siamese.verification.decision import Decision
from tests.report.conftest import TRAINED, VALIDATION
from tests.report.test_threshold_choice import rates, same
from tests.runs import no_space_to_save

BEST = Path("checkpoints/run/best.pt")
FITTED = FittedOn(5, 25, False, None, "2026-01-01T00:00:00+00:00")
QUICK = ("--resamples", 0)
KINDS = ("plda", "wccn")
Evaluate = Callable[..., str]


def people(
    count: int, pictures: int, seed: int, dimensions: int = 8, noise: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings far from the origin: people differ along some axes, pictures along others."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(np.random.default_rng(7).normal(size=(dimensions, dimensions)))[0]
    between, within = (
        np.geomspace(0.3, 0.01, dimensions),
        noise * np.geomspace(0.02, 0.5, dimensions),
    )
    labels = np.repeat(np.arange(count), pictures)
    points = (rng.normal(size=(count, dimensions)) * between)[labels]
    points = points + rng.normal(size=(len(labels), dimensions)) * within
    return (points + 2) @ turn, labels


def log_ratio(model: TwoCovariance, x: np.ndarray, y: np.ndarray) -> float:
    """Evidence that two pictures show one person, from the densities themselves."""
    total = 0.0
    for d, r in enumerate(model.ratio):
        one = multivariate_normal.logpdf([x[d], y[d]], [0, 0], [[r + 1, r], [r, r + 1]])
        two = multivariate_normal.logpdf([x[d], y[d]], [0, 0], [[r + 1, 0], [0, r + 1]])
        total += one - two
    return total


def auc_of(scores: np.ndarray, labels: np.ndarray) -> float:
    first, second = np.triu_indices(len(labels), 1)
    return float(roc_auc_score(labels[first] == labels[second], scores[first, second]))


def cosines(vectors: np.ndarray) -> np.ndarray:
    unit = vectors.astype(np.float64)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    return np.asarray(np.round(unit @ unit.T * 2**20) / 2**20)


def test_an_axis_weighs_what_the_product_of_its_coordinates_adds_to_the_evidence() -> None:
    """Turning one of two pictures to the other side changes the products' part alone."""
    rng = np.random.default_rng(0)
    model = TwoCovariance(np.zeros(4), rng.normal(size=(4, 4)), np.array([0.2, 9.0, 1.0, 1e-4]))
    found = weighted_axes(model)
    order = [1, 2, 0]  # by ratio; the last says nothing about people
    assert found.shape == (4, len(order))
    for column, d in enumerate(order):
        x, y = rng.normal(size=(2, 1))
        alone = TwoCovariance(np.zeros(1), np.eye(1), model.ratio[d : d + 1])
        weight = (log_ratio(alone, x, y) - log_ratio(alone, x, -y)) / 2 / float(x[0] * y[0])
        np.testing.assert_allclose(found[:, column], weight * model.axes[:, d], rtol=1e-9)


def test_the_directions_are_those_of_linear_discriminant_analysis() -> None:
    embeddings, labels = people(300, 20, 0)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    found = fit_map("plda", embeddings, labels, FITTED)
    wanted = LinearDiscriminantAnalysis(solver="eigen").fit(unit, labels).scalings_
    for column in range(3):  # those that differ enough to be told apart
        a, b = found.matrix[:, column].astype(np.float64), wanted[:, column]
        assert abs(a @ b) / np.linalg.norm(a) / np.linalg.norm(b) > 0.999
    np.testing.assert_allclose(found.centre, unit.mean(0), atol=1e-6)


def test_on_others_it_comes_near_the_whole_evidence_and_beats_equal_weights() -> None:
    """Where lengths say little: AUC 0.98, 0.97, 0.91; the cosine 0.51, WCCN with it 0.69."""
    embeddings, labels = people(150, 12, 0, dimensions=48, noise=5)
    others, who = people(60, 5, 1, dimensions=48, noise=5)
    model = fit(embeddings, labels, np.ones(len(labels)))
    points, one = model.coordinates(others), np.ones(len(others))
    whole = auc_of(model.log_ratio(points, one, points, one, 1), who)
    mapped = auc_of(cosines(fit_map("plda", embeddings, labels, FITTED)(others)), who)
    assert mapped == pytest.approx(whole, abs=0.02)
    assert mapped > auc_of(cosines(points), who) + 0.03
    assert mapped > auc_of(cosines(others), who) + 0.3
    both = auc_of(cosines(fit_map("wccn", embeddings, labels, FITTED)(others)), who)
    assert both > auc_of(cosines(others), who) + 0.1


def test_wccn_scores_by_the_mean_of_two_cosines() -> None:
    """Of embeddings, and of what the inverse of the shrunk covariance within people makes of them.

    Inner products by a system of equations in float64, cosines by scikit-learn.
    """
    embeddings, labels = people(30, 8, 0)
    labels = labels[: len(embeddings) - 3]  # people of several sizes
    embeddings = embeddings[: len(labels)]
    others, _ = people(6, 4, 1)
    unit, new = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (embeddings, others))
    within = np.zeros((8, 8))
    for person in np.unique(labels):
        mine = unit[labels == person]
        within += len(mine) / len(unit) * np.cov(mine.T, bias=True)
    within = 0.9 * within + 0.1 * np.trace(within) / 8 * np.eye(8)
    offset = new - unit.mean(0)
    wanted = offset @ np.linalg.solve(within, offset.T)
    found = fit_map("wccn", embeddings, labels * 3 + 1, FITTED)
    assert (found.matrix.shape, found.dimensions, found.kind) == ((8, 8), 16, "wccn")
    made = (new - found.centre) @ found.matrix.astype(float)
    np.testing.assert_allclose(made @ made.T, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
    lengths = np.sqrt(np.diag(wanted))
    mean = (cosine_similarity(others) + wanted / np.outer(lengths, lengths)) / 2
    given = found(3 * others)
    assert (given.dtype, given.shape) == (np.float32, (24, 16))
    np.testing.assert_allclose(cosine_similarity(given.astype(float)), mean, rtol=0, atol=1e-5)
    np.testing.assert_allclose(given @ given.T, mean, rtol=0, atol=1e-5)


def test_plda_is_stored_as_earlier_versions_did_and_wccn_says_what_it_is() -> None:
    centre, matrix = np.zeros(4, np.float32), np.eye(4, dtype=np.float32)
    plda, wccn = (ScoringMap(centre, matrix, FITTED, kind) for kind in KINDS)  # type: ignore[arg-type]
    bytes_of = b"(4, 4)" + centre.tobytes() + matrix.tobytes()
    assert plda.digest == hashlib.sha256(bytes_of).hexdigest()
    assert wccn.digest != plda.digest
    assert set(wccn.as_dict()) - set(plda.as_dict()) == {"kind"}
    for one in (plda, wccn):
        again = ScoringMap.from_dict(one.as_dict(), 4)
        assert (again.kind, again.digest, again.dimensions) == (
            one.kind,
            one.digest,
            one.dimensions,
        )
        baked = Baked(one.digest, one.dimensions, FITTED, one.kind)
        assert Baked.from_dict(baked.as_dict(), 4) == baked
        assert ("kind" in baked.as_dict()) == (one.kind == "wccn")
    for changed in ({"kind": "wccn"}, {"kind": "lda"}, {"kind": None}, {"dimensions": 5}):
        fields = {**Baked(plda.digest, 4, FITTED).as_dict(), **changed}
        with pytest.raises(ValueError, match=r"range|kind"):
            Baked.from_dict(fields, 4)


def test_a_map_is_a_loop_over_rows() -> None:
    rng = np.random.default_rng(0)
    found = ScoringMap(
        rng.normal(size=5).astype(np.float32), rng.normal(size=(5, 3)).astype(np.float32), FITTED
    )
    rows = rng.normal(size=(7, 5)).astype(np.float32)
    mapped = found(rows)
    assert (mapped.dtype, mapped.shape) == (np.float32, (7, 3))
    for row, given in zip(rows.astype(float), mapped, strict=True):
        unit = row / np.sqrt((row**2).sum())
        wanted = [
            sum((unit[i] - float(found.centre[i])) * float(found.matrix[i, j]) for i in range(5))
            for j in range(3)
        ]
        np.testing.assert_allclose(given, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found(3 * rows), mapped, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "labels", "message"),
    [
        ("plda", [0] * 30, "1 people: PLDA tells people apart"),
        ("wccn", [0] * 30, "1 people: WCCN tells people apart"),
        ("plda", range(30), "nobody has two pictures"),
        ("wccn", range(30), "nobody has two pictures: WCCN learns"),
        ("plda", [0, 0, 1, 1], "4 pictures of 2 people: PLDA finds [01] dimensions .* add people"),
    ],
)
def test_too_few_are_refused(kind: FittedName, labels: Any, message: str) -> None:
    vectors = np.random.default_rng(0).normal(size=(len(labels), 8))
    with pytest.raises(UserError, match=message):
        fit_map(kind, vectors, np.array(labels), FITTED)


def test_wccn_needs_pictures_that_differ() -> None:
    one = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    with pytest.raises(UserError, match="pictures of each person get one and the same embedding"):
        fit_map("wccn", np.repeat(one, 3, 0), np.repeat(np.arange(5), 3), FITTED)


def test_what_is_no_number_is_refused() -> None:
    embeddings, labels = people(10, 5, 0)
    embeddings[3, 2] = np.nan
    for kind in KINDS:
        with pytest.raises(UserError, match="1 of 50 embeddings hold NaN or Inf"):
            fit_map(kind, embeddings, labels, FITTED)  # type: ignore[arg-type]


@pytest.mark.parametrize(("count", "pictures"), [(4, 6), (3, 20), (10, 2)])
def test_few_people_and_fewer_pictures_than_dimensions_work(count: int, pictures: int) -> None:
    embeddings, labels = people(count, pictures, 0, dimensions=64)
    found = fit_map("plda", embeddings, labels + 5, FITTED)
    assert np.isfinite(found(embeddings)).all()
    assert 2 <= found.dimensions <= count * pictures / 5
    found = fit_map("wccn", embeddings, labels + 5, FITTED)
    assert np.isfinite(found(embeddings)).all()
    assert found.dimensions == 128


def embedded(evaluate: Evaluate, *arguments: object) -> tuple[np.ndarray, np.ndarray]:
    evaluate("embed", "--out", "e.npz", *arguments)
    with np.load("e.npz") as file:
        return file["embeddings"], file["labels"]


def stored() -> ScoringMap:
    return ScoringMap.from_dict(read_checkpoint(BEST)["scoring"], 16)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_fitted_on_the_training_people_and_kept(
    trained: Path, evaluate: Evaluate, kind: FittedName
) -> None:
    title = kind.upper()
    before = read_checkpoint(BEST)
    told = evaluate(kind, *QUICK)
    after = read_checkpoint(BEST)
    assert set(after) - set(before) == {"scoring"}
    assert same({key: after[key] for key in before}, before)
    vectors, labels = embedded(evaluate, "--part", "train")
    found = stored()
    again = fit_map(kind, vectors, labels, FITTED)
    assert (found.kind, found.digest) == (kind, again.digest)
    assert (found.fitted.people, found.fitted.pictures) == (TRAINED, 5 * TRAINED)
    made = f"{found.dimensions} of 16" if kind == "plda" else "16 dimensions beside the 16"
    assert f"{title} of {TRAINED} people, {5 * TRAINED} pictures: {made}" in told
    # Both figures by a loop over all pairs of the validation people, and what commands say.
    vectors, who = embedded(evaluate)
    aucs = [auc_of(cosines(one), who) for one in (vectors, found(vectors))]
    assert aucs[0] != pytest.approx(aucs[1], abs=1e-3)
    assert f"AUC: cosine {aucs[0]:.4f}, {title} {aucs[1]:.4f}" in told
    assert f"AUC {aucs[1]:.4f}\n" in evaluate("roc", "--scoring", kind, *QUICK)
    written = json.loads(Path(f"runs/run/{kind}.json").read_text("utf-8"))
    assert written["figures"]["auc"]["b"] == pytest.approx(aucs[1], abs=1e-9)
    assert written["digest"] == found.digest
    mapped, _ = embedded(evaluate, "--scoring", kind)
    assert (mapped.dtype, mapped.shape) == (np.float32, (5 * VALIDATION, found.dimensions))
    np.testing.assert_allclose(mapped, found(vectors), rtol=1e-5, atol=1e-6)
    # It is stored, and in force only where it is asked for.
    assert np.array_equal(embedded(evaluate)[0], vectors)


@pytest.mark.parametrize("kind", KINDS)
def test_a_threshold_belongs_to_its_scoring(
    trained: Path, evaluate: Evaluate, kind: FittedName
) -> None:
    scored = f"scored by {kind.upper()}"
    evaluate(kind, *QUICK)
    evaluate("threshold", "--target-fmr", 0.3, *QUICK)
    first = Decision.from_dict(read_checkpoint(BEST)["decision"])
    assert (first.scoring, first.map) == ("cosine", "")
    told = evaluate("roc", "--scoring", kind, *QUICK)
    assert "chosen with `scoring` cosine and does not hold here" in told
    assert "own threshold" not in told
    told = evaluate(
        "threshold", "--target-fmr", 0.3, "--scoring", kind, "--target-fpir", 0.4, *QUICK
    )
    decision = Decision.from_dict(read_checkpoint(BEST)["decision"])
    assert (decision.scoring, decision.map) == (kind, stored().digest)
    vectors, labels = embedded(evaluate)  # auto: as the threshold was chosen
    assert vectors.shape[1] == stored().dimensions
    fmr, fnmr = rates(cosines(vectors), labels, decision.threshold)
    assert fmr <= 0.3
    assert (decision.chosen["fmr"], decision.chosen["fnmr"]) == pytest.approx((fmr, fnmr), abs=1e-9)
    told = evaluate("roc", *QUICK)
    assert f"own threshold {decision.threshold:.4f}" in told
    assert scored in told
    assert "own threshold" not in evaluate("roc", "--scoring", "cosine", *QUICK)
    assert scored in evaluate("identify")
    assert scored in evaluate("threshold", "--target-fmr", 0.4, *QUICK)  # chosen anew: it stays
    assert Decision.from_dict(read_checkpoint(BEST)["decision"]).map == decision.map


def test_another_plda_takes_its_threshold_along(trained: Path, evaluate: Evaluate) -> None:
    evaluate("plda", *QUICK)
    evaluate("threshold", "--target-fmr", 0.3, "--scoring", "plda", *QUICK)
    assert "removed" not in evaluate("plda", *QUICK), "the same map keeps it"
    assert "decision" in read_checkpoint(BEST)
    before = BEST.read_bytes()
    assert "is as it was" in evaluate("plda", "--flip", "false", "--write", "false")
    assert BEST.read_bytes() == before
    told = evaluate("plda", "--flip", "false", *QUICK)
    assert "so it was removed: choose it anew" in told
    assert "decision" not in read_checkpoint(BEST)
    assert not stored().fitted.flip
    assert "fitted with" in evaluate("roc", "--scoring", "plda", "--flip", "true", *QUICK)
    evaluate("threshold", "--target-fmr", 0.3, *QUICK)  # one of the cosine's
    evaluate("plda", *QUICK)
    assert Decision.from_dict(read_checkpoint(BEST)["decision"]).scoring == "cosine"


@pytest.mark.parametrize(("kind", "other"), [("plda", "wccn"), ("wccn", "plda")])
def test_one_kind_takes_the_place_of_the_other(
    trained: Path, evaluate: Evaluate, kind: FittedName, other: FittedName
) -> None:
    evaluate(kind, *QUICK)
    evaluate("threshold", "--target-fmr", 0.3, "--scoring", kind, *QUICK)
    lacking = (
        rf"best\.pt holds {kind.upper()}, not {other.upper()}; fit it with siamese-eval {other} "
    )
    with pytest.raises(UserError, match=lacking):
        evaluate("roc", "--scoring", other)
    with pytest.raises(UserError, match=lacking):
        Embedder.load(BEST, "cpu", scoring=other)
    decision = read_checkpoint(BEST)["decision"]
    told = evaluate(other, *QUICK)
    assert f"chosen with the {kind.upper()} that is replaced, so it was removed" in told
    assert f"siamese-eval threshold --scoring {other}" in told
    assert "decision" not in read_checkpoint(BEST)
    assert stored().kind == other
    update_checkpoint(BEST, "decision", decision)  # as another program might
    with pytest.raises(UserError, match=f"holds {other.upper()}, not {kind.upper()}, but its thr"):
        Embedder.load(BEST, "cpu")
    assert Embedder.load(BEST, "cpu", scoring=other).decision is None


def test_a_threshold_of_a_map_that_is_not_there_is_not_used(
    trained: Path, evaluate: Evaluate
) -> None:
    evaluate("plda", *QUICK)
    evaluate("threshold", "--target-fmr", 0.3, "--scoring", "plda", *QUICK)
    decision = read_checkpoint(BEST)["decision"]
    update_checkpoint(BEST, "decision", {**decision, "map": "0" * 64})
    with pytest.raises(UserError, match=r"chosen with another PLDA than it holds now; choose it"):
        evaluate("roc")
    assert "another plda" in evaluate("roc", "--scoring", "plda", *QUICK)
    update_checkpoint(BEST, "decision", decision, without="scoring")
    with pytest.raises(UserError, match=r"holds no PLDA, but its threshold was chosen with it"):
        evaluate("roc")
    with pytest.raises(UserError, match=r"holds no PLDA, but .*siamese-eval plda --checkpoint"):
        Embedder.load(BEST, "cpu")
    evaluate("threshold", "--target-fmr", 0.3, "--scoring", "cosine", *QUICK)  # a fix
    assert "own threshold" in evaluate("roc")


def test_what_is_not_there_is_one_line_that_says_how_to_make_it(
    trained: Path, evaluate: Evaluate
) -> None:
    for command in ("roc", "identify", "embed", "people", "threshold"):
        with pytest.raises(
            UserError, match=r"best\.pt holds no PLDA; fit it with siamese-eval plda"
        ):
            evaluate(command, "--scoring", "plda")
    with pytest.raises(UserError, match=r"holds no WCCN; fit it with siamese-eval wccn --check"):
        evaluate("roc", "--scoring", "wccn")
    for kind in KINDS:
        with pytest.raises(UserError, match="leave it out"):
            evaluate(kind, "--scoring", "plda")


DAMAGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "nothing": lambda s: [],
    "no matrix": lambda s: {key: s[key] for key in ("centre", "fitted")},
    "more": lambda s: {**s, "more": 1},
    "NaN": lambda s: {**s, "matrix": s["matrix"] * float("nan")},
    "Inf": lambda s: {**s, "centre": s["centre"] / 0},
    "doubles": lambda s: {**s, "centre": s["centre"].double()},
    "of another embedder": lambda s: {**s, "centre": torch.zeros(8), "matrix": torch.zeros(8, 2)},
    "wider than long": lambda s: {**s, "matrix": torch.ones(16, 17)},
    "flat": lambda s: {**s, "matrix": torch.ones(16)},
    "no columns": lambda s: {**s, "matrix": torch.ones(16, 0)},
    "a list": lambda s: {**s, "matrix": [[1.0]]},
    "no people": lambda s: {**s, "fitted": {**s["fitted"], "people": -1}},
    "a text": lambda s: {**s, "fitted": {**s["fitted"], "flip": "no"}},
    "long": lambda s: {**s, "fitted": {**s["fitted"], "fitted_at": "x" * 1000}},
    "no fields": lambda s: {**s, "fitted": None},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_map_is_one_line_with_the_fix(
    trained: Path, evaluate: Evaluate, damage: str
) -> None:
    good = ScoringMap(np.zeros(16, np.float32), np.eye(16, 4, dtype=np.float32), FITTED).as_dict()
    assert ScoringMap.from_dict(good, 16).dimensions == 4
    update_checkpoint(BEST, "scoring", DAMAGES[damage](good))
    with pytest.raises(
        UserError, match=r"best\.pt: is damaged, its PLDA scoring .* anew with siam"
    ):
        Embedder.load(BEST, "cpu", scoring="plda")
    assert Embedder.load(BEST, "cpu").dimensions == 16, "the cosine needs none"


DAMAGED_KINDS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "unknown": (lambda s: {**s, "kind": "lda"}, "its scoring .* siamese-eval plda or wccn"),
    "a list": (lambda s: {**s, "kind": ["wccn"]}, "its scoring .* siamese-eval plda or wccn"),
    "a tensor": (lambda s: {**s, "kind": torch.ones(2)}, "its scoring .* plda or wccn"),
    "none": (lambda s: {**s, "kind": None}, "its scoring .* siamese-eval plda or wccn"),
    "narrow": (lambda s: {**s, "matrix": torch.ones(16, 15)}, "its WCCN sc.* siamese-eval wccn,"),
    "wide": (lambda s: {**s, "matrix": torch.ones(16, 32)}, "its WCCN sc.* siamese-eval wccn,"),
    "NaN": (lambda s: {**s, "centre": s["centre"] / 0}, "its WCCN scoring .* siamese-eval wccn,"),
}


@pytest.mark.parametrize("damage", DAMAGED_KINDS)
def test_a_damaged_kind_is_one_line_with_the_fix(trained: Path, damage: str) -> None:
    change, said = DAMAGED_KINDS[damage]
    zeros = np.zeros(16, np.float32)
    good = ScoringMap(zeros, np.eye(16, dtype=np.float32), FITTED, "wccn").as_dict()
    assert ScoringMap.from_dict(good, 16).dimensions == 32
    update_checkpoint(BEST, "scoring", change(good))
    with pytest.raises(UserError, match=rf"best\.pt: is damaged, {said}"):
        Embedder.load(BEST, "cpu", scoring="wccn")
    assert Embedder.load(BEST, "cpu").dimensions == 16, "the cosine needs none"


def test_a_damaged_map_is_replaced(trained: Path, evaluate: Evaluate) -> None:
    update_checkpoint(BEST, "scoring", [])
    evaluate("plda", *QUICK)
    assert stored().dimensions > 1


def test_own_people_but_none_of_those_who_judge(trained: Path, evaluate: Evaluate) -> None:
    before = BEST.read_bytes()
    with pytest.raises(UserError, match=r"`crop` 0.8: .* give it with `data`"):
        evaluate("plda", "--crop", 0.8)
    with pytest.raises(UserError, match=r"of its people validate or test .*take them out"):
        evaluate("plda", "--data", "faces")
    assert BEST.read_bytes() == before
    split = read_checkpoint(BEST)["split"]
    judging = {*split["validation"]["identities"], *split["test"]["identities"]}
    for folder in Path("others").iterdir():
        if folder.name in judging:
            folder.rename(folder.with_name("renamed"))
    told = evaluate("plda", "--data", "others", "--crop", 0.8)
    assert "on 8 other people of others" in told
    assert (stored().fitted.people, stored().fitted.crop) == (8, 0.8)


def test_a_folder_that_moved_and_one_without_validation_people(
    trained: Path, evaluate: Evaluate
) -> None:
    evaluate("plda", *QUICK)
    digest = stored().digest
    content = read_checkpoint(BEST)
    del content["scoring"]
    for part in content["split"].values():
        part["folder"] = "gone"
    write_checkpoint(BEST, content)
    with pytest.raises(UserError, match=r"gone: the folder .* give its new place with"):
        evaluate("plda", *QUICK)
    told = evaluate("plda", "--data", "faces", "--part", "train")
    assert stored().digest == digest
    assert "AUC: cosine" in told
    content["split"].pop("validation")
    write_checkpoint(BEST, content)
    told = evaluate("plda", "--data", "faces", "--part", "train")
    assert "not held against the cosine" in told
    assert stored().digest == digest


def test_one_picture_per_person_is_refused_before_anything_is_written(
    trained: Path, evaluate: Evaluate
) -> None:
    for number in range(4):
        folder = trained / "single" / f"one {number}"
        folder.mkdir(parents=True)
        Image.new("RGB", (40, 40), (60 * number, 9, 9)).save(folder / "1.png")
    before = BEST.read_bytes()
    with pytest.raises(UserError, match=r"people of single.*: nobody has two pictures"):
        evaluate("plda", "--data", "single")
    assert BEST.read_bytes() == before


def test_a_failed_write_leaves_the_checkpoint(
    trained: Path, evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = BEST.read_bytes()
    no_space_to_save(monkeypatch)
    with pytest.raises(UserError, match="No space"):
        evaluate("plda", *QUICK)
    assert BEST.read_bytes() == before


def test_a_decision_of_an_earlier_siamese_is_of_the_cosine(
    trained: Path, evaluate: Evaluate
) -> None:
    evaluate("plda", *QUICK)
    evaluate("threshold", "--target-fmr", 0.3, *QUICK)
    fields = read_checkpoint(BEST)["decision"]
    old = {key: value for key, value in fields.items() if key not in ("scoring", "map")}
    update_checkpoint(BEST, "decision", old)
    assert "own threshold" in evaluate("roc", *QUICK)
    found = Decision.from_dict(old)
    assert (found.scoring, found.map) == ("cosine", "")
    assert (
        Decision.from_dict(replace(found, scoring="plda", map="a" * 64).as_dict()).map == "a" * 64
    )
    assert (
        Decision.from_dict(replace(found, scoring="wccn", map="a" * 64).as_dict()).map == "a" * 64
    )
    for scoring, digest in (
        ("plda", ""),
        ("wccn", ""),
        ("auto", "aa"),
        ("cosine", "aa"),
        ("lda", "aa"),
        ("plda", 1),
        (1, ""),
    ):
        with pytest.raises(ValueError, match="scoring of the decision"):
            Decision.from_dict({**old, "scoring": scoring, "map": digest})


def test_from_python(trained: Path, evaluate: Evaluate) -> None:
    evaluate("plda", *QUICK)
    evaluate("threshold", "--target-fmr", 0.3, "--scoring", "plda", *QUICK)
    model = Embedder.load(BEST, "cpu")
    plain = Embedder.load(BEST, "cpu", scoring="cosine")
    pictures = sorted(Path("faces").glob("*/*.png"))[:7]
    given, mapped = plain.embed(pictures), model.embed(pictures)
    assert mapped.shape == (7, stored().dimensions) == (7, model.dimensions)
    np.testing.assert_array_equal(mapped, stored()(given))
    assert model.embed(iter([])).shape == (0, model.dimensions)
    answer = model.verify(*pictures[:2])
    mirrored = model.embed(pictures[:2], flip=True)  # as the threshold was chosen
    assert answer.score == pytest.approx(cosines(mirrored)[0, 1], abs=1e-5)
    assert answer.threshold == Decision.from_dict(read_checkpoint(BEST)["decision"]).threshold
    # The threshold is not that of these scores: no answer rather than a wrong one.
    assert plain.decision is None
    assert plain.verify(*pictures[:2]).same is None
    assert model.fingerprint != plain.fingerprint
    with pytest.raises(UserError, match="`scoring` lda: one of auto, cosine, plda, wccn"):
        Embedder.load(BEST, "cpu", scoring="lda")  # type: ignore[arg-type]


def test_embeddings_of_a_file_are_compared_as_they_are() -> None:
    for kind in (AuditSettings, CurveSettings):
        check_evaluation(kind(embeddings="e.npz"))
        with pytest.raises(UserError, match="`scoring` plda: maps what a checkpoint gives"):
            check_evaluation(kind(embeddings="e.npz", scoring="plda"))
        with pytest.raises(UserError, match="`scoring` wccn: maps what a checkpoint gives"):
            check_evaluation(kind(embeddings="e.npz", scoring="wccn"))


def test_folds_are_scored_alike(trained: Path, evaluate: Evaluate) -> None:
    evaluate("roc", "--folds", 2, *QUICK)
    given = ("--folds", 2, "--fold_checkpoints", "checkpoints/run/folds/*/best.pt")
    with pytest.raises(UserError, match="holds no PLDA; fit it with siamese-eval plda"):
        evaluate("roc", *given, "--scoring", "plda")
    paths = sorted(Path("checkpoints/run/folds").glob("*/best.pt"))
    evaluate("plda", *QUICK)
    for command in ("roc", "threshold"):
        with pytest.raises(UserError, match="models that `folds` trains hold no PLDA"):
            evaluate(command, "--folds", 3, "--scoring", "plda", *QUICK)
    for path in paths:  # too few people trained them, so any map will do
        update_checkpoint(path, "scoring", read_checkpoint(BEST)["scoring"])
    assert "`scoring` plda" in evaluate(
        "threshold", *given, "--scoring", "plda", "--target-fmr", 0.3, *QUICK
    )
    assert Decision.from_dict(read_checkpoint(BEST)["decision"]).map == stored().digest
    evaluate(
        "threshold", "--checkpoint", paths[0], "--scoring", "plda", "--target-fmr", 0.9, *QUICK
    )
    with pytest.raises(UserError, match=r"`scoring` auto: is plda for .*, cosine for "):
        evaluate("roc", *given)
