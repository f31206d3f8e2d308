"""README's Python is run as it stands there: every name in a block is defined in that block."""

import re
import shutil
from pathlib import Path

import pytest

from siamese.config import TrainSettings
from siamese.tasks.faces.face_runs import train_faces
from tests.conftest import draw_person

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.S | re.M)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``faces/`` and ``checkpoints/my-run/best.pt``, as README has them."""
    home = tmp_path_factory.mktemp("readme")
    for number, name in enumerate(("夏子", "Anna Maria", "Bob", "Cy", "Dora", "Eve")):
        (home / "faces" / name).mkdir(parents=True)
        for image, letter in enumerate("abcd"):
            draw_person(number, image).save(home / "faces" / name / f"{letter}.jpg")
    settings = TrainSettings(data=str(home / "faces"), name="my-run", device="cpu")
    settings.runs, settings.checkpoints = str(home / "runs"), str(home / "checkpoints")
    settings.images.size = 32
    settings.model.backbone, settings.model.pretrained = "test_resnet", False
    settings.model.embedding_dim, settings.split.validation = 8, 2
    settings.batches.people, settings.batches.images, settings.batches.workers = 2, 2, 0
    settings.trainer.epochs, settings.trainer.recalibration_batches = 1, 2
    train_faces(settings)
    return home


def test_there_are_blocks() -> None:
    assert len(BLOCKS) >= 2


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_runs_by_itself(
    block: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})
