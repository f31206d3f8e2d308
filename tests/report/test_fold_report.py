"""``siamese-eval roc --folds`` and ``threshold --folds``."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from siamese.errors import UserError
from siamese.models.checkpoint import read_checkpoint


def folds_of(place: Path) -> list[Path]:
    return sorted((place / "checkpoints" / "run" / "folds").glob("*/best.pt"))


def test_everybody_is_judged_and_a_second_call_trains_nothing(
    trained: Path, evaluate: Callable[..., str]
) -> None:
    told = evaluate("roc", "--folds", 2)
    assert "2 folds of 16 people, the recipe of checkpoints/run/best.pt: 0 trained already" in told
    assert "16 identities, 80 images" in told
    assert "fold by fold" in told
    content = json.loads((trained / "runs/run/eval-2-folds/roc.json").read_text())
    assert [fold["figures"]["identities"] for fold in content["folds"]] == [8, 8]
    assert content["impostor_pairs"] == 2 * 28 * 25
    assert content["intervals"]["auc"] is not None
    before = [(path, path.stat().st_mtime_ns) for path in folds_of(trained)]
    assert len(before) == 2
    assert "2 trained already, 0 to do" in evaluate("pr", "--folds", 2)
    assert [(path, path.stat().st_mtime_ns) for path in folds_of(trained)] == before

    # Their people are those of the checkpoint, each judged by a model that did not see them.
    judged = []
    for path in folds_of(trained):
        split = read_checkpoint(path)["split"]
        own = split["test"]["identities"]
        assert not set(own) & {*split["train"]["identities"], *split["validation"]["identities"]}
        judged += own
    whole = read_checkpoint(trained / "checkpoints/run/best.pt")["split"]
    assert sorted(judged) == sorted(n for part in whole.values() for n in part["identities"])

    # The same from checkpoints that are given, and a threshold from them.
    given = ("--folds", 2, "--fold_checkpoints", "checkpoints/run/folds/*/best.pt")
    again = evaluate("roc", *given, "--out", "again")
    assert next(line for line in again.splitlines() if line.startswith("AUC")) in told
    told = evaluate("threshold", *given, "--target-fmr", 0.3)
    assert "16 people in 2 folds" in told
    assert "each at the threshold that the others choose" in told
    decision = read_checkpoint(trained / "checkpoints/run/best.pt")["decision"]
    assert decision["chosen"]["people"] == 16
    assert decision["chosen"]["fmr"] <= 0.3


def test_the_newest_checkpoint_is_never_one_of_a_fold(
    trained: Path, evaluate: Callable[..., str]
) -> None:
    evaluate("roc", "--folds", 2)
    assert "checkpoints/run/best.pt on validation people" in evaluate("roc")


def test_a_few_people_are_sent_to_the_folds_and_told_what_these_support(
    trained: Path, evaluate: Callable[..., str]
) -> None:
    with pytest.raises(UserError, match=r"16 people in 5 folds support FMR >= 1\.7e-01 "):
        evaluate("threshold", "--folds", 5, "--target-fmr", 0.01)
    assert not (trained / "checkpoints/run/folds").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--folds", 9), "these 16 people give 8"),
        (("--folds", 1), "at least 2"),
        (("--folds", 2, "--part", "test"), "`folds`: judges all people"),
        (("--fold_checkpoints", "x"), "say with `folds` how many"),
        (("--folds", 2, "--fold_checkpoints", "no/*.pt"), "nothing matches"),
        (("--folds", 2, "--fold_checkpoints", "checkpoints/*/*.pt"), "are judged by"),
    ],
)
def test_wrong_folds_are_refused(
    trained: Path, evaluate: Callable[..., str], arguments: tuple[object, ...], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        evaluate("roc", *arguments)
