"""``import siamese``: what a program sees, and the examples that show it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import siamese

REPOSITORY = Path(__file__).resolve().parents[1]
EXAMPLES = REPOSITORY / "scripts" / "examples"


def _python(*arguments: str, cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_loads_no_large_library(tmp_path: Path) -> None:
    code = (
        "import sys; import siamese; dir(siamese)\n"
        "large = {'torch', 'numpy', 'PIL', 'timm', 'torchvision', 'matplotlib', 'jsonargparse'}\n"
        "print(sorted(large & set(sys.modules)))\n"
        "siamese.UserError\n"
        "print('torch' in sys.modules)\n"
        "siamese.SiameseEmbedder\n"
        "print('torch' in sys.modules)\n"
    )
    assert _python("-c", code, cwd=tmp_path).split("\n")[:3] == ["[]", "False", "True"]


def test_dir_lists_the_public_names_and_each_is_there() -> None:
    assert dir(siamese) == sorted(siamese.__all__)
    for name in siamese.__all__:
        assert getattr(siamese, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        siamese.nothing  # noqa: B018
    assert (REPOSITORY / "siamese" / "py.typed").exists()


def test_type_checkers_see_what_programs_get() -> None:
    """The two lists of names in the package agree."""
    import ast

    tree = ast.parse((REPOSITORY / "siamese" / "__init__.py").read_text(encoding="utf-8"))
    typed = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == siamese._MODULES
    assert sorted(typed) == sorted(siamese.__all__)


def test_the_example_of_verification_answers(checkpoint: Path, face_folder: Path) -> None:
    pictures = [str(path) for path in sorted(face_folder.glob("*/*.png"))[:2]]
    example = str(EXAMPLES / "verify_two_pictures.py")
    told = _python(example, checkpoint.parent.name, *pictures, cwd=checkpoint.parents[2])
    assert "score " in told
    assert "no threshold yet" in told
    from siamese.models.checkpoint import update_checkpoint
    from siamese.verification.calibration import Calibration
    from siamese.verification.decision import Decision

    decision = Decision(-1.0, 0.01, Calibration(3.0, -1.0), False, {"origin": "validation"}, {})
    update_checkpoint(checkpoint, "decision", decision.as_dict())
    told = _python(example, str(checkpoint), *pictures, "0.1", cwd=checkpoint.parents[2])
    assert "one person: threshold -1.0000, chosen for a false-match rate of 0.01" in told
    assert "with a prior of 0.1" in told


def test_the_example_of_an_own_network_trains(
    tmp_path: Path, draw_people: Callable[..., Path]
) -> None:
    faces = draw_people(tmp_path / "faces", [f"person {number}" for number in range(12)])
    printed = _python(str(EXAMPLES / "train_own_network.py"), str(faces), cwd=tmp_path)
    assert "AUC 0." in printed
    assert printed.endswith("(2, 512)\n")
    assert list(tmp_path.glob("checkpoints/faces-SmallNetwork-*/best.pt"))


def test_the_example_of_other_embeddings_judges(tmp_path: Path) -> None:
    example = str(EXAMPLES / "judge_other_embeddings.py")
    assert "60 people, 300 pictures" in _python(example, cwd=tmp_path)
    random = np.random.default_rng(0)
    given: dict[str, Any] = {"embeddings": random.normal(size=(40, 8))}
    np.savez(tmp_path / "e.npz", labels=np.repeat(np.arange(10), 4), **given)
    assert "10 people, 40 pictures" in _python(example, "e.npz", cwd=tmp_path)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """An untrained embedder in a run's place, ``checkpoints/run/best.pt``."""
    from siamese.models.checkpoint import KEYS, write_checkpoint

    model = siamese.SiameseEmbedder("test_resnet", 8, size=32)
    content: dict[str, Any] = {key: {} for key in KEYS}
    content |= {
        "model": model.state_dict(),
        "embedder": model.spec("squash").as_dict(),
        "train_weights": [],
        "progress": {"epoch": 1},
        "split": {"train": {"folder": "faces", "pictures": 0, "identities": []}},
    }
    path = tmp_path / "checkpoints" / "run" / "best.pt"
    write_checkpoint(path, content)
    return path
