"""A deployed threshold: chosen on validation people, checked on others, kept in the checkpoint."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from siamese import Embedder, Gallery
from siamese.config import ThresholdSettings
from siamese.errors import UserError
from siamese.models.checkpoint import (
    newest_best,
    read_checkpoint,
    update_checkpoint,
    write_checkpoint,
)
from siamese.report.threshold_choice import _require_support, choose_threshold
from siamese.verification.calibration import Calibration
from siamese.verification.decision import Decision
from siamese.verification.histogram import BINS
from siamese.verification.identification import identify
from tests.report.conftest import TEST, VALIDATION
from tests.runs import no_space_to_save

BEST = Path("checkpoints/run/best.pt")


def same(a: object, b: object) -> bool:
    if torch.is_tensor(a):
        return torch.is_tensor(b) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)


def rates(scores: np.ndarray, labels: np.ndarray, threshold: float) -> tuple[float, float]:
    """FMR and FNMR by a loop over all pairs."""
    genuine, impostor = [], []
    for i in range(len(labels)):
        for j in range(i):
            (genuine if labels[i] == labels[j] else impostor).append(scores[i, j] >= threshold)
    return float(np.mean(impostor)), float(1 - np.mean(genuine))


def embedded(evaluate, *arguments: object) -> tuple[np.ndarray, np.ndarray]:
    evaluate("embed", "--out", "e.npz", *arguments)
    with np.load("e.npz") as file:
        unit = file["embeddings"].astype(np.float64)
        labels = file["labels"]
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return np.round(unit @ unit.T * 2**20) / 2**20, labels


def test_chosen_on_validation_and_checked_on_test_people(trained: Path, evaluate) -> None:
    before = read_checkpoint(BEST)
    told = evaluate("threshold", "--target-fmr", "0.25")
    after = read_checkpoint(BEST)
    assert set(after) - set(before) == {"decision"}
    assert same({key: after[key] for key in before}, before)
    assert [path.name for path in BEST.parent.iterdir() if "tmp" in path.name] == []
    decision = Decision.from_dict(after["decision"])
    fmr, fnmr = rates(*embedded(evaluate), decision.threshold)
    assert fmr <= 0.25
    assert decision.chosen["fmr"] == pytest.approx(fmr, abs=1e-9)
    assert decision.chosen["fnmr"] == pytest.approx(fnmr, abs=1e-9)
    assert (decision.chosen["people"], decision.checked["people"]) == (VALIDATION, TEST)
    # The lowest threshold that keeps the target: a little lower breaks it.
    assert rates(*embedded(evaluate), decision.threshold - 3e-3)[0] > 0.25 - 1e-9
    scores, labels = embedded(evaluate)
    histogram = decision.histogram  # of the validation people, not of those it is checked on
    assert histogram is not None
    pairs = scores[np.triu_indices(len(labels), 1)]
    bins, _ = np.histogram(pairs, BINS, (-1, 1))
    both = np.add(histogram.genuine, histogram.impostor)
    assert both.sum() == len(pairs)
    assert np.abs(both - bins).sum() <= 4  # beside an edge float32 may round either way
    checked = rates(*embedded(evaluate, "--part", "test"), decision.threshold)
    assert (decision.checked["fmr"], decision.checked["fnmr"]) == pytest.approx(checked, abs=1e-9)
    low, high = decision.chosen["fmr_interval"]
    assert low <= fmr <= high
    assert f"threshold {decision.threshold:.4f} for FMR 0.25" in told
    assert "at prior 0.5" in told
    assert Path("runs/run/reliability.png").stat().st_size > 5000
    written = json.loads(Path("runs/run/threshold.json").read_text("utf-8"))
    probability = decision.calibration.probability(decision.threshold, 0.5)
    assert written["probability_at_threshold"] == pytest.approx(float(probability))


def test_later_commands_use_it_and_the_probability_follows_the_prior(
    trained: Path, evaluate
) -> None:
    assert "own threshold" not in evaluate("roc", "--resamples", 0)
    first = evaluate("threshold", "--target-fmr", "0.25", "--prior", "0.01")
    assert "at prior 0.01" in first
    decision = Decision.from_dict(read_checkpoint(BEST)["decision"])
    told = evaluate("roc", "--resamples", 0)
    assert f"the checkpoint's own threshold {decision.threshold:.4f}" in told
    written = json.loads(Path("runs/run/eval-validation/roc.json").read_text("utf-8"))
    assert written["decision"]["threshold"] == decision.threshold
    assert written["at_decision"]["fmr"] == pytest.approx(decision.chosen["fmr"])
    assert f"at threshold {decision.threshold:.4f}" in evaluate("people")
    assert "the scores here differ" in evaluate("roc", "--flip", "false", "--resamples", 0)
    low, even = (decision.calibration.probability(decision.threshold, p) for p in (0.01, 0.5))
    assert low < even
    odds = float(even / (1 - even)) / 99
    assert float(low) == pytest.approx(odds / (1 + odds))


def test_a_threshold_of_searches_keeps_its_rate_and_is_used(trained: Path, evaluate) -> None:
    told = evaluate("threshold", "--target-fmr", "0.25", "--target-fpir", "0.2", "--gallery", "2")
    decision = Decision.from_dict(read_checkpoint(BEST)["decision"])
    chosen = decision.identification
    labels = embedded(evaluate)[1]
    judged = identify(np.load("e.npz")["embeddings"], labels, images_per_person=2)
    assert chosen["fnir"] == judged.fnir_at(0.2)
    assert chosen["fpir"] == np.mean(judged.non_mated >= chosen["threshold"]) <= 0.2
    assert f"threshold {chosen['threshold']:.4f} for FPIR 0.2" in told
    gallery = Gallery("g.db", Embedder.load(BEST, "cpu"))
    found = gallery.identify_embeddings(np.load("e.npz")["embeddings"][:1])[0]
    assert found.threshold == chosen["threshold"]
    assert found.chosen_for == "FPIR 0.2 of identification"
    with pytest.raises(UserError, match=r"`target_fpir` 1e-05: \d+ searches support FPIR >= "):
        choose_threshold(ThresholdSettings(target_fmr=0.25, target_fpir=1e-5))


def test_other_people_without_those_who_trained_or_chose(trained: Path, evaluate) -> None:
    used = {p for part in ("train", "validation") for p in _identities(part)}
    told = evaluate("threshold", "--target-fmr", 0.3, "--data", "others", "--write", "false")
    assert "decision" not in read_checkpoint(BEST)
    assert "wrote the threshold" not in told
    assert "checkpoints/run/best.pt is as it was" in told
    expected = 7 if "人0 x" in used else 8
    assert f"checked on: checkpoints/run/best.pt on {expected} other people of others" in told
    if expected == 7:
        assert "1 people left out whose names trained the network or chose" in told
    everybody = evaluate("threshold", "--target-fmr", 0.3, "--data", "faces", "--write", "false")
    assert f"{VALIDATION + 5} people left out whose names" in everybody
    assert f"{TEST} other people of faces" in everybody


def _identities(part: str) -> list[str]:
    return read_checkpoint(BEST)["split"][part]["identities"]


def test_too_few_people_for_the_target_are_refused(trained: Path, evaluate) -> None:
    before = BEST.read_bytes()
    with pytest.raises(UserError, match=r"6 validation people support FMR >= 2.0e-01; add people"):
        evaluate("threshold", "--target-fmr", "1e-3")
    assert BEST.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target-fmr", 0), "`target_fmr` 0.0: must be above 0 and below 1"),
        (("--prior", 1), "`prior` 1.0: must be above 0"),
        (("--target-fmr", 0.3, "--data", "alone"), "two are needed to check it"),
        (("--target-fmr", 0.3, "--data", "nowhere"), "no such folder"),
    ],
)
def test_bad_input(trained: Path, evaluate, arguments: tuple, message: str) -> None:
    (trained / "alone/one").mkdir(parents=True)
    Image.new("RGB", (40, 40)).save("alone/one/1.png")
    with pytest.raises(UserError, match=message):
        evaluate("threshold", *arguments)


def test_a_damaged_decision_is_one_line_with_the_fix(trained: Path, evaluate) -> None:
    update_checkpoint(BEST, "decision", {"threshold": "x"})
    with pytest.raises(UserError, match="its threshold cannot be used; choose one anew"):
        evaluate("roc")
    evaluate("threshold", "--target-fmr", 0.3)  # the fix works


def test_a_failed_write_leaves_the_checkpoint(
    trained: Path, evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = BEST.read_bytes()
    no_space_to_save(monkeypatch)
    with pytest.raises(UserError, match="No space"):
        evaluate("threshold", "--target-fmr", 0.3)
    assert BEST.read_bytes() == before
    assert [path.name for path in BEST.parent.iterdir() if "tmp" in path.name] == []


def test_the_file_keeps_its_permissions_and_its_age(trained: Path, evaluate) -> None:
    BEST.chmod(0o600)
    newer = Path(shutil.copytree("checkpoints/run", "checkpoints/newer")) / "best.pt"
    os.utime(BEST, (1e9, 1e9))
    evaluate("threshold", "--target-fmr", 0.3, "--checkpoint", BEST)
    assert BEST.stat().st_mode & 0o777 == 0o600
    assert newest_best(Path("checkpoints")) == newer


def test_weights_that_training_replaced_meanwhile_get_no_threshold(
    trained: Path, evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trains_on(*arguments: object) -> list[Path]:
        content = read_checkpoint(BEST)
        content["model"] = {name: tensor + 1 for name, tensor in content["model"].items()}
        write_checkpoint(BEST, content)
        return []

    monkeypatch.setattr("siamese.report.threshold_choice.save_figure", trains_on)
    with pytest.raises(UserError, match="holds other weights than it did at the start"):
        evaluate("threshold", "--target-fmr", 0.3)
    assert "decision" not in read_checkpoint(BEST)


def test_a_folder_that_moved(trained: Path, evaluate) -> None:
    before = evaluate("threshold", "--target-fmr", 0.3).splitlines()
    content = read_checkpoint(BEST)
    for part in content["split"].values():
        part["folder"] = "gone"
    write_checkpoint(BEST, content)
    with pytest.raises(UserError, match=r"gone: .* give the new place of the folder with `data`"):
        evaluate("threshold", "--target-fmr", 0.3)
    told = evaluate("threshold", "--target-fmr", 0.3, "--data", "faces", "--part", "test")
    assert told.splitlines()[0] == before[0]
    assert [line for line in told.splitlines() if line.startswith("  FMR")] == [
        line for line in before if line.startswith("  FMR")
    ]


def test_only_known_extras_are_written(trained: Path) -> None:
    with pytest.raises(ValueError, match="none of decision"):
        update_checkpoint(BEST, "model", {})


def test_a_decision_survives_its_dictionary() -> None:
    decision = Decision(0.4, 1e-3, Calibration(12.0, -5.0), True, {"fmr": 0.1}, {})
    assert Decision.from_dict(decision.as_dict()) == decision
    with pytest.raises(ValueError, match="none"):
        Decision.from_dict({**decision.as_dict(), "threshold": float("nan")})


def test_support_is_refused_below_the_number_that_is_told() -> None:
    with pytest.raises(UserError, match=r"200 validation people support FMR >= 1\.5e-04"):
        _require_support(200, 1.4e-4)
    _require_support(200, 1.5e-4)
