"""The house: imports point one way, and a fresh clone holds what it should."""

import ast
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
# A room may import from those below it.
FLOORS = {
    "errors": 0,
    "libraries": 0,
    "processors": 0,
    "crew": 1,
    "files": 1,
    "config": 2,
    "drawing": 3,
    "verification": 3,
    "zoo": 3,
    "data": 4,
    "auditing": 4,
    "demo": 5,
    "models": 5,
    "report": 6,
    "curation": 7,
    "recognition": 7,
    "training": 7,
    "cropping": 8,
    "tasks": 8,
    "serving": 9,
    "studies": 9,
    "cli": 10,
}


def _room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "siamese" and len(parts) > 1 else None


@pytest.mark.parametrize("file", sorted((REPOSITORY / "siamese").rglob("*.py")), ids=str)
def test_imports_point_downwards(file: Path) -> None:
    own = file.relative_to(REPOSITORY / "siamese").parts[0].removesuffix(".py")
    if own == "__init__":
        return
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        modules = []
        if isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        for module in modules:
            room = _room(module)
            assert room is None or room == own or FLOORS[room] < FLOORS[own], f"{file}: {module}"
            if own == "verification":
                assert module.split(".")[0] not in {"matplotlib", "timm", "PIL", "sklearn"}


@pytest.mark.parametrize("file", sorted((REPOSITORY / "siamese").rglob("*.py")), ids=str)
def test_functions_have_at_most_sixty_lines(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name


def test_no_two_modules_have_one_name() -> None:
    names = [path.name for path in (REPOSITORY / "siamese").rglob("*.py")]
    twice = {name for name in names if names.count(name) > 1}
    assert twice == {"__init__.py"}


def _tracked() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return listed.stdout.splitlines()


def test_top_level_holds_nothing_else() -> None:
    allowed = {"siamese", "scripts", "checkpoints", "runs", "configs", "tests"}
    allowed |= {"pyproject.toml", "README.md", "LICENSE"}
    top = {path.split("/")[0] for path in _tracked()}
    assert {name for name in top if not name.startswith(".")} <= allowed
    assert {"checkpoints/.gitkeep", "runs/.gitkeep"} <= set(_tracked())


def test_outputs_are_ignored_by_git() -> None:
    for path in ("checkpoints/run/best.pt", "runs/run/metrics.csv", "uv.lock", ".venv/x"):
        ignored = subprocess.run(["git", "check-ignore", "-q", path], cwd=REPOSITORY, check=False)
        assert ignored.returncode == 0, path
