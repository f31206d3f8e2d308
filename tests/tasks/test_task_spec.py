"""What studies know of the tasks: complete, cheap to load, and true of the tasks themselves."""

import pickle
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from siamese.config import SplitSettings, TrainSettings
from siamese.config.reading import names_of
from siamese.models.checkpoint import KINDS
from siamese.tasks.task_spec import TRAINING_STEP, task_names, task_spec

SPECS = [task_spec(name) for name in task_names()]


def test_a_task_is_found_by_its_name_and_by_its_settings():
    assert task_names() == ["classification", "face"]
    for spec in SPECS:
        assert task_spec(spec.name) is task_spec(type(spec.settings())) is spec
        assert pickle.loads(pickle.dumps(spec)) is spec
    with pytest.raises(KeyError):
        task_spec("speech")


def test_looking_a_task_up_loads_no_torch():
    code = "import sys; from siamese.tasks.task_spec import task_spec; task_spec('face')\n"
    code += "print(sorted({'torch', 'matplotlib', 'timm'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_what_a_task_names_exists(spec):
    for place in (spec.training, spec.resuming):
        module, name = place.split(":")
        assert callable(getattr(import_module(module), name))
    assert spec.checkpoint in KINDS
    settings = spec.settings()
    known = names_of(spec.settings)
    single = {spec.data_folder, spec.network, *spec.subsets, *spec.small}
    for name in single | spec.movable | spec.folders | spec.immaterial(settings):
        assert name in known, name
    assert spec.selecting(settings) in spec.figures
    assert spec.data_folder in spec.folders & spec.movable
    assert set(spec.axes) <= {"epochs", "images", "time"}


def test_a_folder_of_nothing_has_no_workload(tmp_path: Path):
    faces = task_spec("face").settings()
    assert task_spec("face").workload(faces).images > 0  # the drawn faces
    faces.data = str(tmp_path)
    assert task_spec("face").workload(faces).images is None
    classes = task_spec("classification").settings()
    classes.data.name, classes.data.root = "folder", str(tmp_path)
    assert task_spec("classification").workload(classes).images is None


def test_fewer_training_people_are_less_work(face_folder: Path):
    """Six people with 36 pictures, one of them for validation."""
    images = []
    for people in (None, 4, 2):
        split = SplitSettings(validation=1, train_people=people)
        faces = TrainSettings(data=str(face_folder), split=split)
        faces.trainer.epochs = 1
        images.append(task_spec("face").workload(faces).images)
    assert images == pytest.approx([TRAINING_STEP * drawn + 6 for drawn in (30, 24, 12)])
