"""What holds for every command: --version, help in plain words, a folder first, plain output."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from siamese import __version__
from siamese.cli.data import COMMANDS as DATA
from siamese.cli.eval import COMMANDS as EVAL
from siamese.cli.parsing import name_arguments
from siamese.cli.train import parse
from siamese.cli.use import COMMANDS as USE
from siamese.cli.zoo import COMMANDS as ZOO
from siamese.config.starting import brought, starting_point
from siamese.errors import UserError
from siamese.files.terminal import PlainStream, plain_output

PROGRAMS = {"train": (), "eval": tuple(EVAL), "data": tuple(DATA), "zoo": tuple(ZOO)}
PROGRAMS["use"] = tuple(USE)
EVERY = [(program, name) for program, names in PROGRAMS.items() for name in names]
WITH_FOLDER = [("eval", name) for name in EVAL if name != "compare"]
WITH_FOLDER += [("data", name) for name, one in DATA.items() if one.folder]


@pytest.mark.parametrize("words", [(p,) for p in PROGRAMS] + EVERY, ids=" ".join)
def test_version(run_here, words):
    told = run_here(*words, "--version")
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout == f"siamese-{' '.join(words)} {__version__}\n"


@pytest.mark.parametrize("words", [("train",), *EVERY], ids=" ".join)
def test_help_holds_no_types_of_python(run_here, words):
    told = run_here(*words, "--help")
    assert told.returncode == 0
    text = " ".join(told.stdout.split())
    found = re.findall(
        r"Literal|Optional|Union|\bPath\b|\bNone\b|\bTrue\b|\bFalse\b(?!-)|\btuple\b|\bdict\b|\bstr\b"
        r"|\bint\b|\bfloat\b|\bbool\b|<class|\[ITEM|type:|CONFIG",
        text,
    )
    assert not found
    assert told.stdout.startswith(f"usage: siamese-{' '.join(words)} ")


def test_choices_are_told_once(run_here):
    text = " ".join(run_here("train", "--help").stdout.split())
    assert text.count("nonzero_mean") == 1
    assert "--images.fit FIT How a picture is made square: squash" in text
    assert "one of squash" not in text  # its sentence names both
    text = " ".join(run_here("eval", "roc", "--help").stdout.split())
    assert "one of validation, test, train, null; default: null" in text
    assert "--root" not in text
    text = run_here("zoo", "eval", "--help").stdout
    assert text.count("--root") == 1
    assert "data.root" not in text


@pytest.mark.parametrize(("program", "name"), [("train", ""), *WITH_FOLDER])
def test_a_folder_may_stand_first(run_here, tmp_path, program, name):
    words = (program, name) if name else (program,)
    printed = run_here(*words, f"{tmp_path}/", "--print_config")
    assert printed.returncode == 0, printed.stderr
    assert f"data: {tmp_path}/\n" in printed.stdout
    same = run_here(*words, tmp_path, f"--data={tmp_path}/", "--print_config")
    assert same.returncode == 0, same.stderr
    both = run_here(*words, tmp_path, "--data", "other", "--print_config")
    assert both.returncode == 2
    assert f"--data other: {tmp_path} stands first; give one of them" in both.stderr


def test_words_before_the_settings(tmp_path):
    folder = str(tmp_path)
    assert name_arguments(["a", "b", folder, "--x"], ["a", "b"], data=True) == [
        "--a=a", "--b=b", f"--data={folder}", "--x",
    ]  # fmt: skip
    assert name_arguments([folder, "s"], ["study"], data=True) == [f"--data={folder}", "--study=s"]
    with pytest.raises(UserError, match="--a y: x stands first"):
        name_arguments(["x", "z", "--a", "y"], ["a", "b"])


@pytest.mark.parametrize("name", ["eval", "augmentations", "compare", "train"])
@pytest.mark.parametrize("option", ["--root", "--data.root"])
def test_root_has_one_meaning(run_here, name, option):
    printed = run_here("zoo", name, option, "there", "--print_config")
    assert printed.returncode == 0, printed.stderr
    assert "root: there\n" in printed.stdout


# The files that siamese brings


def test_a_starting_point_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    by_name = parse(["--config", "face/from_scratch"])
    for given in ("face/from_scratch.yaml", "configs/face/from_scratch.yaml"):
        assert parse([f"--config={given}"]) == by_name
    assert not by_name.model.pretrained
    (tmp_path / "face").mkdir()
    (tmp_path / "face" / "from_scratch").write_text("seed: 7", encoding="utf-8")
    assert parse(["--config", "face/from_scratch"]).seed == 7  # a path that exists wins
    for given in ("cifar10_main", "studies/cifar10_main.yaml", "configs/studies/cifar10_main.yaml"):
        assert starting_point(given, "STUDY", studies=True).is_file()
    with pytest.raises(UserError, match=r"did you mean face/article\?.*face/default"):
        parse(["--config", "face/artikel"])
    with pytest.raises(UserError, match="no such file"):
        parse(["--config", "../pyproject.toml"])


def test_the_wheel_holds_every_starting_point():
    import tomllib

    root = Path(__file__).resolve().parents[2]
    built = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]
    assert built["targets"]["wheel"]["force-include"] == {"configs": "siamese/configs"}
    assert brought() == root / "configs"


# What reaches the terminal

EVIL = "\x1b]0;owned\x07\u202efdp\x9b31m\x7f\r\n=1+1"


def test_nothing_that_is_printed_steers_a_terminal(monkeypatch):
    shown, errors = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setattr(sys, "stderr", errors)
    with plain_output():
        print(f"name {EVIL} end \udcff")
        sys.stderr.writelines([f"error {EVIL}\n"])
    assert sys.stdout is shown
    for text in (shown.getvalue(), errors.getvalue()):
        assert not set(text) & set("\x1b\x07\u202e\x9b\x7f\r\udcff")
        assert "\\x1b]0;owned\\x07\\u202efdp" in text
    assert "\\udcff" in shown.getvalue()


def test_progress_bars_still_move():
    from tqdm import tqdm

    direct, plain = io.StringIO(), io.StringIO()
    for file in (direct, PlainStream(plain)):
        with contextlib.closing(tqdm(total=2, file=file, desc="夏子", mininterval=0)) as bar:
            bar.update(2)
        file.write("\n\x1b[A")
    assert re.sub(r"\d", "0", plain.getvalue()).count("\r") == direct.getvalue().count("\r")
    assert plain.getvalue().endswith("\n\x1b[A")


@pytest.mark.parametrize(
    "words",
    [
        ("train", EVIL),
        ("train", "--data", EVIL),
        ("train", f"--{EVIL}", "1"),
        ("train", "--optimizer.lr", EVIL),
        ("train", "--config", EVIL),
        ("eval", EVIL),
        ("eval", "roc", "--checkpoint", EVIL),
        ("eval", "compare", EVIL, EVIL),
        ("data", "mend", EVIL, "--plan", EVIL),
        ("data", "fetch", EVIL, "--out", "x"),
        ("zoo", "compare", EVIL),
        ("zoo", "train", "--model", EVIL),
        ("zoo", "resume", EVIL),
    ],
    ids=lambda words: " ".join(words[:2]).encode("unicode_escape").decode()[:30],
)
def test_refusals_are_plain(run_here, tmp_path, words):
    told = run_here(*words, cwd=tmp_path)
    assert told.returncode == 2
    assert told.stderr.count("\n") == 1
    assert not set(told.stdout + told.stderr) & set("\x1b\x07\u202e\x9b\x7f\r")


@pytest.fixture
def evil_embeddings(tmp_path):
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), 3)
    names = np.array([f"=cmd {EVIL}", "-0.5", "@a", "+b", *"cdefghij"])
    np.savez(
        tmp_path / "e.npz",
        embeddings=draw.normal(size=(36, 8)).astype(np.float32),
        labels=labels,
        names=names,
    )
    return tmp_path


def test_names_of_a_file_are_shown_and_tabled_plainly(run_here, evil_embeddings):
    told = run_here("eval", "people", "--embeddings", "e.npz", cwd=evil_embeddings)
    assert told.returncode == 0, told.stderr
    assert not set(told.stdout + told.stderr) & set("\x1b\x07\u202e\x9b\x7f\r")
    assert told.stdout.count("=1+1") == told.stdout.count("\\r\\n=1+1") > 0  # one line a name
    table = (evil_embeddings / "runs/eval-e/people.csv").read_text("utf-8")
    assert "'=cmd" in table
    assert "\n'@a," in table
    assert "\n-0.5," in table  # a number is no formula


def test_names_that_are_no_text_print_in_any_locale(tmp_path):
    name = os.fsdecode(b"caf\xe9 \xe5\xa4\x8f")
    result = subprocess.run(
        [sys.executable, "-c", "from siamese.cli.train import main; main()", name],
        cwd=tmp_path,
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
        check=False,
    )
    assert result.returncode == 2
    assert (
        result.stderr == b"siamese-train: error: caf\\udce9 \\udce5\\udca4\\udc8f: no such folder\n"
    )


# What an evaluation does without

_NOT_NEEDED = (
    "torch._dynamo", "torch._inductor", "sympy", "sklearn", "scipy.stats", "scipy.optimize",
    "pytorch_metric_learning", "tensorboard", "torch.utils.tensorboard", "triton", "schedulefree",
    "pandas", "networkx", "jinja2",
)  # fmt: skip


def test_an_evaluation_imports_no_more_than_it_needs(evil_embeddings):
    code = (
        "import sys\nfrom siamese.cli.eval import main\n"
        "sys.argv[1:] = ['roc', '--embeddings', 'e.npz', '--resamples', '100']\n"
        "try:\n    main()\nfinally:\n"
        "    loaded = set(sys.modules)\n"
        "    from siamese.models.embedder import SiameseEmbedder\n"
        "    SiameseEmbedder('test_resnet', 8)\n"
        "    import json; print(json.dumps([sorted(loaded), sorted(sys.modules)]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=evil_embeddings, text=True, capture_output=True
    )
    assert result.returncode == 0, result.stderr
    judged, built = map(set, json.loads(result.stdout.splitlines()[-1]))
    assert "torch" in judged
    assert not judged & {*_NOT_NEEDED, "timm", "torchvision", "PIL.ImageDraw2"}
    assert "timm" in built  # a checkpoint's network: the compiler stays away all the same
    assert not built & set(_NOT_NEEDED)


def test_a_deferred_compiler_is_the_real_one():
    code = (
        "from siamese.libraries import timm\n"
        "timm.is_model\n"
        "import sys; assert 'torch._dynamo' not in sys.modules\n"
        "import torch, torchvision\n"
        "from torch._dynamo.utils import is_compile_supported as real\n"
        "from torchvision.ops.roi_align import is_compile_supported as asked\n"
        "assert asked('cpu') == real('cpu')\n"
        "assert torch._dynamo.__file__ and torch.compiler.is_compiling() is False\n"
        "print(torch.compile(lambda x: x + 1, backend='eager')(torch.ones(1)).item())"
    )
    result = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True)
    assert result.stdout == "2.0\n", result.stderr
