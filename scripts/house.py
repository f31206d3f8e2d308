"""How large the package is, how its rooms lean on each other, and how many files a command passes.

python scripts/house.py                                  # lines, rooms, arrows, functions
python scripts/house.py --package ../other/siamese       # of another checkout
python scripts/house.py --passes siamese-eval roc --embeddings e.npz   # files whose code runs
"""

from __future__ import annotations

import argparse
import ast
import io
import statistics
import sys
import threading
import tokenize
from importlib import import_module
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "siamese"
_NO_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
    tokenize.ENCODING, tokenize.ENDMARKER,
}  # fmt: skip


def docstrings(tree: ast.AST) -> set[int]:
    """Lines that docstrings take."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for child in body if isinstance(body, list) else []:
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                lines |= set(range(child.lineno, (child.end_lineno or child.lineno) + 1))
    return lines


def code_lines(text: str) -> int:
    """Lines with code: without blank ones, comments and docstrings."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    lines: set[int] = set()
    for token in tokens:
        if token.type not in _NO_CODE:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings(ast.parse(text)))


def room_of(module: str) -> str | None:
    """The room of a module of the package, e.g. ``data`` of ``siamese.data.folder``."""
    parts = module.split(".")
    return parts[1] if parts[0] == "siamese" and len(parts) > 1 else None


def arrows_of(files: list[Path], package: Path) -> set[tuple[str, str]]:
    """Pairs of rooms of which the first imports from the second."""
    arrows = set()
    for file in files:
        own = file.relative_to(package).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            rooms = {room_of(module) for module in modules} - {None, own}
            arrows |= {(own, str(room)) for room in rooms}
    return {arrow for arrow in arrows if arrow[0] != "__init__"}


def floors_of(arrows: set[tuple[str, str]]) -> dict[str, int]:
    """Each room's floor: one above the highest that it leans on."""
    below: dict[str, set[str]] = {}
    for upper, lower in arrows:
        below.setdefault(upper, set()).add(lower)
        below.setdefault(lower, set())
    floors: dict[str, int] = {}
    while len(floors) < len(below):
        ready = [room for room in below if room not in floors and below[room] <= floors.keys()]
        if not ready:
            raise SystemExit(
                f"a circle of rooms: {', '.join(sorted(below.keys() - floors.keys()))}"
            )
        for room in ready:
            floors[room] = 1 + max((floors[lower] for lower in below[room]), default=0)
    return floors


def describe(package: Path) -> None:
    """Print what a stranger has to hold in mind."""
    files = sorted(package.rglob("*.py"))
    texts = {file: file.read_text(encoding="utf-8") for file in files}
    arrows = arrows_of(files, package)
    floors = floors_of(arrows)
    functions = [
        (node.end_lineno - node.lineno + 1, f"{file.relative_to(package)}: {node.name}")
        for file, text in texts.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    ]
    print(f"lines      {sum(len(text.splitlines()) for text in texts.values()):,}")
    print(f"of code    {sum(map(code_lines, texts.values())):,}")
    print(f"modules    {len(files)}")
    print(f"rooms      {len(floors)} on {max(floors.values())} floors, {len(arrows)} arrows")
    sizes = [size for size, _ in functions]
    print(f"functions  {len(sizes):,}, median {statistics.median(sizes):.0f} lines")
    for size, name in sorted(functions, reverse=True)[:3]:
        print(f"  {size:3} lines  {name}")
    for room in sorted(floors, key=lambda room: (-floors[room], room)):
        place = package / room
        lines = sum(
            len(text.splitlines())
            for file, text in texts.items()
            if place in file.parents or file == place.with_suffix(".py")
        )
        print(f"  floor {floors[room]}  {room:14} {lines:6,} lines")


def passes(command: list[str]) -> None:
    """Run a command in this process and count the files of the package whose functions run."""
    passed: set[str] = set()

    def note(frame: object, event: str, _argument: object) -> None:
        if event == "call":
            code = frame.f_code  # type: ignore[attr-defined]
            if code.co_name != "<module>" and "/siamese/" in code.co_filename:
                passed.add(code.co_filename)

    module = import_module(f"siamese.cli.{command[0].removeprefix('siamese-')}")
    sys.argv = command
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        module.main()
    except SystemExit as end:
        if end.code:
            raise
    finally:
        sys.setprofile(None)
    inside = sorted(name for name in passed if Path(name).is_relative_to(_imported_package()))
    print(f"{len(inside)} files of the package ran:")
    for name in inside:
        print(f"  {Path(name).relative_to(_imported_package())}")


def _imported_package() -> Path:
    import siamese

    return Path(str(siamese.__file__)).parent


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--package", type=Path, default=PACKAGE, help="the package's folder")
    parser.add_argument("--passes", nargs=argparse.REMAINDER, help="a command of the package")
    arguments = parser.parse_args()
    if arguments.passes:
        passes(arguments.passes)
    else:
        describe(arguments.package)


if __name__ == "__main__":
    main()
