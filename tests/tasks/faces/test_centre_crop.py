"""``images.crop``: a run on the centres of pictures is a run on pictures of these centres."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from siamese.errors import UserError
from siamese.models.checkpoint import read_checkpoint
from siamese.tasks.faces.face_runs import resume_training, train_faces
from tests.runs import same, short_run


def _last(settings: Any) -> dict[str, Any]:
    return read_checkpoint(Path(settings.checkpoints) / "run" / "last.pt")


def _centres(faces: Path, out: Path) -> Path:
    """The middle 24 x 24 pixels of pictures of 40 x 48."""
    for file in faces.glob("*/*.png"):
        place = out / file.parent.name / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(file) as picture:
            picture.crop((8, 12, 32, 36)).save(place)
    return out


def test_the_centre_is_what_is_trained_on_and_judged(face_folder: Path, tmp_path: Path) -> None:
    settings = short_run(face_folder, tmp_path / "crop")
    settings.images.crop = 0.6
    cut = short_run(_centres(face_folder, tmp_path / "centres"), tmp_path / "cut")
    whole = short_run(face_folder, tmp_path / "whole")
    for run in (settings, cut, whole):
        train_faces(run)
    same(_last(settings)["model"], _last(cut)["model"])
    same(_last(settings)["figures"], _last(cut)["figures"])
    assert _last(whole)["figures"]["train_loss"] != _last(cut)["figures"]["train_loss"]
    assert _last(settings)["embedder"]["crop"] == 0.6
    assert "crop" not in _last(whole)["embedder"]
    longer = replace(settings, trainer=replace(settings.trainer, epochs=2))
    longer.images = replace(settings.images, crop=0.7)
    longer.optimizer = replace(longer.optimizer, lr=_last(settings)["settings"]["optimizer"]["lr"])
    longer.batches = replace(longer.batches, **_last(settings)["settings"]["batches"])
    with pytest.raises(UserError, match=r"^`images\.crop` was 0\.6 and cannot become 0\.7"):
        resume_training("run", longer.checkpoints, lambda saved: longer)
    longer.images = replace(settings.images)
    resume_training("run", longer.checkpoints, lambda saved: longer)
    assert _last(longer)["embedder"]["crop"] == 0.6
