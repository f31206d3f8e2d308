"""Command lines: bad settings end in one line with the remedy, good ones mean what they say."""

import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml

from siamese.cli.flags import with_flags
from siamese.cli.train import SHORT, parse
from siamese.config import TrainSettings, demo_settings
from siamese.errors import UserError

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "face"


@pytest.fixture
def config(tmp_path):
    """Function that writes a YAML file and gives its path as a string."""

    def write(text: str, name: str = "a.yaml") -> str:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return write


def refusal(*arguments: str) -> str:
    with pytest.raises(UserError) as caught:
        parse(arguments)
    message = with_flags(str(caught.value))  # as the command prints it
    assert "\n" not in message.strip()
    return message


# What is refused


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--optimizer.lrr", "1"], ["optimizer.lrr", "did you mean optimizer.lr?"]),
        (["--optimzer.lr", "1"], ["optimzer.lr", "did you mean optimizer.lr?"]),
        (["--trainer.epoch=3"], ["trainer.epoch", "did you mean trainer.epochs?"]),
        (["--embedding_dim", "64"], ["embedding_dim", "did you mean model.embedding_dim?"]),
        (["--date", "faces"], ["date", "did you mean data?"]),
        (["--qqqqqqqq", "1"], ["unknown setting qqqqqqqq", "--help"]),
        (["faces", "more"], ["unexpected argument 'more'"]),
        (["faces", "--data", "other"], ["--data other", "faces stands first"]),
        (["-e", "3"], ["unexpected argument '-e'"]),
        (["--data"], ["--data", "expected one argument"]),
        (["--epochs", "many"], ["--trainer.epochs many", "a whole number"]),
        (["--epochs", "1.5"], ["--trainer.epochs 1.5", "a whole number"]),
        (["--lr", "fast"], ["--optimizer.lr fast", "a number or null"]),
        (["--model.pretrained", "maybe"], ["--model.pretrained maybe", "true or false"]),
        (["--optimizer.betas", "0.9"], ["--optimizer.betas 0.9", "a list"]),
        (["--optimizer.betas", "[0.9]"], ["--optimizer.betas [0.9]", "a list"]),
        (["--optimizer", "adamww"], ["--optimizer.name adamww", "did you mean adamw?"]),
        (["--loss", "tripplet"], ["--loss.name tripplet", "did you mean triplet?"]),
        (["--loss.miner", "easy"], ["--loss.miner easy", "batch_hard"]),
        (["--precision", "fp8"], ["--trainer.precision fp8", "bf16"]),
        (["--batches.people", "all"], ["--batches.people all", "a whole number or auto"]),
        (["--batches.people", "2.5"], ["--batches.people 2.5", "a whole number or auto"]),
        (["--trainer.compile", "maybe"], ["--trainer.compile maybe", "true, false, auto"]),
    ],
)
def test_unknown_settings_and_wrong_types(arguments, parts):
    message = refusal(*arguments)
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("seed", "-1"),
        ("split.seed", "-1"),
        ("images.size", "8"),
        ("images.mean", "[0.5, 0.5, 0.5]"),
        ("augment.flip", "1.5"),
        ("augment.rotation", "200"),
        ("augment.crop_scale", "[0.9, 0.5]"),
        ("augment.crop_ratio", "[2.0, 1.0]"),
        ("split.validation", "1.5"),
        ("split.test", "-0.1"),
        ("batches.people", "1"),
        ("batches.images", "1"),
        ("batches.workers", "-1"),
        ("batches.images_per_epoch", "0"),
        ("model.embedding_dim", "0"),
        ("model.dropout", "1.0"),
        ("model.freeze_backbone", "-1"),
        ("loss.margin", "0"),
        ("loss.lr_factor", "0"),
        ("optimizer.lr", "0"),
        ("optimizer.betas", "[0.9, 1.0]"),
        ("optimizer.weight_decay", "-1"),
        ("optimizer.momentum", "1"),
        ("optimizer.nesterov", "true"),
        ("optimizer.final_lr", "0"),
        ("optimizer.lookahead", "-1"),
        ("optimizer.lookahead_alpha", "0"),
        ("optimizer.ema", "1"),
        ("optimizer.ema", "0.999"),  # the default optimizer averages already
        ("optimizer.clip", "0"),
        ("schedule.warmup", "-0.1"),
        ("schedule.warmup", ".inf"),
        ("schedule.warmup_start", "0"),
        ("schedule.min_lr", "-1"),
        ("schedule.milestones", "[0.5, 0.5]"),
        ("schedule.milestones", "[0]"),
        ("schedule.gamma", "0"),
        ("schedule.power", "0"),
        ("schedule.cycle", "0"),
        ("schedule.cycle_factor", "0.5"),
        ("trainer.epochs", "0"),
        ("trainer.accumulate", "0"),
        ("trainer.recalibration_batches", "-1"),
        ("name", "a/b"),
        ("name", ".."),
    ],
)
def test_values_out_of_range(setting, value):
    assert refusal(f"--{setting}", value).startswith(f"--{setting} ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--batches.people", "auto", "--batches.chunk", "8"],
            "--batches.people auto: must be a number beside --batches.chunk",
        ),
        (["--loss", "supcon", "--loss.margin", "0.1"], "loss.margin does nothing for the supcon"),
        (["--loss.temperature", "0.1"], "loss.temperature does nothing for the triplet loss"),
        (["--loss", "arcface", "--loss.miner", "batch_hard"], "none for the arcface loss"),
        (["--loss", "circle", "--loss.miner", "semihard"], "none unless the loss is triplet"),
        (["--split.test", "2", "--split.test_data", "t"], "--split.test 2.0: must be 0 beside"),
        (["--schedule.name", "cosine"], "radam_schedulefree needs no schedule; use auto"),
        (["--optimizer.lookahead", "5"], "0: radam_schedulefree averages already"),
        (
            ["--optimizer", "sgd_schedulefree", "--optimizer.momentum", "0"],
            "--optimizer.momentum 0.0: must be above 0",
        ),
        (
            ["--optimizer", "adamw", "--lr", "0.1", "--schedule.min_lr", "0.2"],
            "--schedule.min_lr 0.2: must be at most the learning rate",
        ),
    ],
)
def test_settings_that_contradict_each_other(arguments, message):
    assert message in refusal(*arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimizer: {lrr: 1}", "unknown setting optimizer.lrr; did you mean optimizer.lr?"),
        ("optimizr: {lr: 1}", "did you mean optimizer.lr?"),
        ("epochs: 3", "unknown setting epochs; did you mean trainer.epochs?"),
        ("seed: 1\nseed: 2", "line 2: seed is given twice"),
        ("trainer:\n  epochs: 3\n  epochs: 4", "line 3: epochs is given twice"),
        ("seed: 1\noptimizer: 3", "a.yaml: optimizer is a group of settings"),
        ("optimizer: [1]", "optimizer is a group of settings"),
        ("optimizer:", "optimizer is a group of settings"),
        ("trainer: {epochs: x}", "--trainer.epochs x: must be a whole number"),
        ("trainer: {epochs: 0}", "--trainer.epochs 0: must be at least 1"),
        ("- a\n- b", "must hold settings as `name: value` lines"),
        ("just text", "must hold settings"),
        ("seed: 1\na: b: c", "line 2: is not valid YAML"),
        ("seed: 1\n---\nseed: 2", "is not valid YAML"),
        (
            "seed: !!python/name:os.system",
            "line 1: tags (tag:yaml.org,2002:python/name:os",
        ),
        ("1: 2", "1"),
    ],
)
def test_bad_files(config, text, message):
    assert message in refusal("--config", config(text))


def test_files_that_cannot_be_read(tmp_path):
    assert "gone.yaml: no such file" in refusal("--config", str(tmp_path / "gone.yaml"))
    assert "is a folder; a file is needed" in refusal("--config", str(tmp_path))
    (tmp_path / "a.yaml").write_bytes(b"name: caf\xe9")
    assert "not a UTF-8 text file" in refusal("--config", str(tmp_path / "a.yaml"))


def test_the_bad_one_of_several_files_is_named(config):
    good, bad = config("seed: 1"), config("seed: 1\nseed: 2", "bad.yaml")
    for arguments in (
        ["--config", good, "--config", bad],
        ["--config", bad, "--config", good],
        [f"--config={bad}", "--config", good],
    ):
        assert "bad.yaml" in refusal(*arguments)


@pytest.mark.parametrize("short", ["--optimizer.l", "--trainer.epo", "--dat", "--see", "--conf"])
def test_abbreviations_are_refused(short):
    assert "unknown setting" in refusal(short, "1")


# What is understood


def test_defaults():
    assert parse([]) == TrainSettings()


def test_short_names():
    values = {
        "--epochs": "3",
        "--lr": "0.5",
        "--optimizer": "adamw",
        "--loss": "circle",
        "--backbone": "resnet10t",
        "--size": "64",
        "--workers": "1",
        "--precision": "bf16",
    }
    assert set(values) == set(SHORT)
    for short, value in values.items():
        settings = parse([short, value])
        assert settings == parse([f"{SHORT[short]}={value}"])
        assert settings != TrainSettings()
    assert parse(["--lr=0.5"]).optimizer.lr == 0.5


def test_data_is_text_whatever_it_looks_like():
    for path in ("faces", "夏子/顔 写真", "123", "1e3", "a: b", "[x]", "a=b", "faces #2"):
        assert parse(["--data", path]).data == path
        assert parse([f"--data={path}"]).data == path


@pytest.mark.parametrize("number", ["1e-3", "1E-3", "0.001", "1.0e-3", ".001"])
def test_numbers_in_files_are_numbers(config, number):
    assert parse(["--config", config(f"optimizer: {{lr: {number}}}")]).optimizer.lr == 0.001


def test_lists_and_null():
    settings = parse(["--optimizer.betas", "[0.8, 0.9]", "--augment.crop_scale", "null"])
    assert settings.optimizer.betas == (0.8, 0.9)
    assert settings.augment.crop_scale is None


def test_later_files_win(config):
    one = config("seed: 1\ntrainer: {epochs: 5}")
    two = config("seed: 2\noptimizer: {lr: 0.5}", "b.yaml")
    settings = parse(["--config", one, "--config", two])
    assert (settings.seed, settings.trainer.epochs, settings.optimizer.lr) == (2, 5, 0.5)
    assert parse(["--config", two, f"--config={one}"]).seed == 1
    assert parse([f"--config={two}", "--config", one]).seed == 1


def test_the_command_line_beats_every_file_wherever_it_stands(config):
    file = config("seed: 1\ntrainer: {epochs: 5}")
    for arguments in (
        ["--seed", "9", "--config", file],
        ["--config", file, "--seed", "9"],
        ["--config", file, "--seed=9", "--config", file],
        ["--seed=9", f"--config={file}"],
    ):
        settings = parse(arguments)
        assert (settings.seed, settings.trainer.epochs) == (9, 5)


def test_files_and_the_command_line_beat_given_defaults(config):
    file = config("images: {size: 32}")
    settings = parse(["--config", file, "--epochs", "9"], demo_settings())
    assert (settings.images.size, settings.trainer.epochs) == (32, 9)
    assert settings.model.backbone == demo_settings()["model"]["backbone"]
    assert settings.loss == TrainSettings().loss


def test_settings_come_back_as_defaults():
    settings = parse(
        ["--loss", "circle", "--loss.margin", "0.3", "--optimizer.betas", "[0.8, 0.9]"]
    )
    assert parse([], settings.as_dict()) == settings


# The files a user starts from


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_starting_point_parses(file):
    settings = parse(["--config", str(file), "--data", "faces"])
    assert settings.data == "faces"
    given = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert given
    for group, values in given.items():
        found = asdict(settings)[group]
        for name, value in values.items():
            wanted = tuple(value) if isinstance(value, list) else value
            wanted = float(value) if isinstance(found[name], float) else wanted
            assert found[name] == wanted


def test_the_default_file_holds_the_defaults():
    assert parse(["--config", str(CONFIGS / "default.yaml")]) == TrainSettings()
    # and leaves every loss open: none of its values belongs to one of them
    parse(["--config", str(CONFIGS / "default.yaml"), "--loss", "supcon"])


def test_from_scratch_is_the_same_recipe_on_small_pictures():
    settings = parse(["--config", str(CONFIGS / "from_scratch.yaml")])
    usual = TrainSettings()
    assert settings.model == replace(usual.model, pretrained=False)
    for name in ("augment", "loss", "optimizer", "schedule"):
        assert getattr(settings, name) == getattr(usual, name), name
    assert settings.batches == replace(usual.batches, images_per_epoch=12800)


def test_the_article_has_its_published_numbers():
    s = parse(["--config", str(CONFIGS / "article.yaml")])
    assert s.model.backbone.startswith("tf_efficientnetv2_b0")
    assert (s.model.pretrained, s.model.embedding_dim) == (True, 512)
    assert (s.images.size, s.images.fit) == (224, "squash")
    assert s.images.mean == (0.485, 0.456, 0.406)
    assert s.images.std == (0.229, 0.224, 0.225)
    assert (s.batches.people * s.batches.images, s.batches.images) == (32, 4)
    assert s.batches.images_per_epoch == 100_000
    assert (s.loss.name, s.loss.margin, s.loss.miner) == ("triplet", 0.1, "none")
    assert (s.optimizer.lr, s.optimizer.betas) == (1e-4, (0.9, 0.999))
    assert s.trainer.epochs == 150
    a = s.augment
    assert (a.flip, a.crop_scale, a.crop_ratio) == (0.5, (0.8, 1.0), (0.75, 1.33))
    assert {a.rotation, a.color_jitter, a.grayscale, a.blur, a.erasing} == {0.0}


# As typed


def assert_one_line(result: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert result.returncode == 2, result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    assert "Traceback" not in result.stderr
    for part in parts:
        assert part in result.stderr


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["train", "--epoch", "3"], "siamese-train: error: unknown setting epoch; did you mean"),
        (["train", "--lr", "fast"], "must be a number or null"),
        (["train", "--config", "gone.yaml"], "gone.yaml: no such file"),
        (["eval", "rock"], "siamese-eval: error: unknown command rock; did you mean roc?"),
        (["eval", "roc", "--chekpoint", "c.pt"], "did you mean checkpoint?"),
        (["eval", "pr", "--batch", "0"], "--batch 0: must be at least 1"),
        (["eval", "embed", "--part", "training"], "one of validation, test, train"),
        (["data", "dmo"], "siamese-data: error: unknown command dmo; did you mean demo?"),
        (["data", "demo"], "--out is missing"),
        (["data", "demo", "--peopel", "3"], "did you mean people?"),
    ],
)
def test_a_bad_command_line_is_one_line_and_exit_code_2(run_here, tmp_path, arguments, part):
    result = run_here(*arguments, cwd=tmp_path)
    assert_one_line(result, part)
    assert not result.stdout
    assert not list(tmp_path.iterdir())


def test_the_printed_settings_can_be_fed_back(run_here, tmp_path):
    first = ["--loss", "circle", "--loss.margin", "0.3", "--name", "夏子 1", "--lr", "1e-3"]
    printed = run_here("train", *first, "--print_config", cwd=tmp_path)
    assert printed.returncode == 0
    assert not printed.stderr
    (tmp_path / "a.yaml").write_text(printed.stdout, encoding="utf-8")
    again = run_here("train", "--config", "a.yaml", "--print_config", cwd=tmp_path)
    assert again.stdout == printed.stdout
    assert parse(["--config", str(tmp_path / "a.yaml")]) == parse(first)


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("train", ["--help"]),
        ("train", ["--epoch", "3"]),
        ("train", ["--print_config"]),
        ("eval", ["--help"]),
        ("eval", ["roc", "--help"]),
        ("eval", ["embed", "--chekpoint", "c"]),
        ("data", ["demo", "--help"]),
    ],
)
def test_help_and_errors_do_not_load_torch(module, arguments):
    code = (
        f"import sys; sys.argv[1:] = {arguments!r}\n"
        f"from siamese.cli.{module} import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    print(sorted(sys.modules), file=sys.stderr)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True)
    loaded = result.stderr.splitlines()[-1]
    assert "'siamese.cli.parsing'" in loaded
    for heavy in ("torch", "numpy", "matplotlib", "PIL", "timm"):
        assert f"'{heavy}'" not in loaded


def test_help_explains_every_setting(run_here):
    text = " ".join(run_here("train", "--help").stdout.split())
    for group, values in asdict(TrainSettings()).items():
        names = [f"{group}.{name}" for name in values] if isinstance(values, dict) else [group]
        for name in names:
            assert f"--{name} " in text
    assert "one folder per person" in text
    for short, name in SHORT.items():
        assert f"{short} = {name}" in text


# Bad data folders, as typed. Bug: the progress bar adds lines where stderr is no terminal.


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "no such folder"),
        ("empty", "no usable picture"),
        ("one person", "one person only (夏子)"),
    ],
)
def test_a_bad_data_folder_is_one_line(run_here, draw_people, tmp_path, kind, reason):
    root = tmp_path / "faces"
    if kind != "missing":
        root.mkdir()
    if kind == "one person":
        draw_people(root, ["夏子"])
    result = run_here("train", "--data", root, "--model.pretrained", "false", cwd=tmp_path)
    assert_one_line(result, str(root), reason)
    assert not (tmp_path / "runs").exists()


def test_a_validation_folder_that_shares_a_person_is_one_line(
    run_here, draw_people, face_folder, tmp_path
):
    own = draw_people(tmp_path / "own", ["夏子", "new"])
    result = run_here("train", "--data", face_folder, "--split.validation_data", own, cwd=tmp_path)
    assert_one_line(result, f"{own}: 1 people are in {face_folder}, too (夏子)")


# Files on which the library ends in a traceback, never ends, or misleads.


@pytest.mark.parametrize("text", ["", "# seed: 3\n", "---\n"])
def test_a_file_without_settings_is_refused(config, text):
    assert "a.yaml: holds no settings" in refusal("--config", config(text))


@pytest.mark.parametrize("path", ["#1", "&a"])
def test_a_path_is_never_taken_for_null(path):
    """As null it would silently train on the demo faces."""
    assert path in refusal("--data", path)
    assert path in refusal(f"--data={path}")


def test_a_group_given_one_value_is_refused_as_such():
    assert "images is a group of settings" in refusal("--images", "big")


def test_the_nearest_name_is_a_setting_and_not_a_group(config):
    assert "did you mean loss." in refusal("--config", config("loss: {lr: 1}"))
    assert "did you mean help" not in refusal("--config", config("help: 1"))


def test_a_key_that_is_a_list_is_refused(config):
    assert "a.yaml" in refusal("--config", config("? [a, b]\n: c"))


def test_text_that_looks_like_a_number_is_refused_with_the_remedy(config):
    assert "text" in refusal("--config", config("name: 7"))


def test_the_choices_of_a_list_do_not_include_a_number():
    assert "number" not in refusal("--augment.crop_scale", "0.5")


def test_a_file_that_holds_itself_is_refused(config):
    file = config("a: &x\n  b: *x")
    code = f"from siamese.cli.train import parse; parse(['--config', {file!r}])"
    result = subprocess.run(
        [sys.executable, "-c", code], text=True, capture_output=True, timeout=20
    )
    assert "UserError" in result.stderr


def test_a_seed_that_torch_cannot_take_is_refused():
    assert "seed" in refusal("--seed", str(2**64))


def test_an_empty_data_folder_name_is_refused():
    assert "data" in refusal("--data", "")


def test_a_flag_alone_is_true():
    assert parse(["--split.test", "0.2", "--trainer.test_curve"]).trainer.test_curve
    settings = parse(
        ["--split.test=0.2", "--trainer.test-curve", "--epochs", "3", "--model.pretrained", "false"]
    )
    assert settings.trainer.test_curve
    assert settings.trainer.epochs == 3
