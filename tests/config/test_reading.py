"""Reading: YAML's traps are closed, and values become checked settings or one line."""

import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from siamese.cli.parsing import parse_settings
from siamese.cli.train import parse
from siamese.cli.zoo import parse_training
from siamese.config import ClassificationSettings, TrainSettings
from siamese.config.reading import build_settings, flat_settings, flatten, read_yaml
from siamese.errors import UserError
from siamese.studies.expand import Place, expand
from siamese.studies.study import read_study


@pytest.fixture
def yaml_file(tmp_path):
    def write(text):
        (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
        return tmp_path / "a.yaml"

    return write


def test_plain_values_are_what_they_look_like(yaml_file):
    content = read_yaml(yaml_file("a: [1e-3, -1, .5, 2., 1E4, true, null, ~, 'x', 7]\nb:"))
    assert content == {"a": [0.001, -1, 0.5, 2.0, 10000.0, True, None, None, "x", 7], "b": None}
    assert [type(value) for value in content["a"][:3]] == [float, int, float]


@pytest.mark.parametrize("text", ["28m", "1h20m", "1:20", "no", "on", "2020-01-01", "=", "6,5"])
def test_text_stays_text(yaml_file, text):
    assert read_yaml(yaml_file(f"a: {text}")) == {"a": text}


# Numbers to some readers of YAML, or to Python, and text to others: here they are text.
NO_NUMBERS = ("1_000", "1_0.5", "0x1F", "017", "00", "0o17", "0b1", "0x1p3", "٣", "1e-1_0")


@dataclass
class Few:
    """Settings of each kind."""

    whole: int = 0
    number: float | None = None
    text: str | None = None


def few(yaml_file, name, text):
    """Settings with one value, given in each of the ways there are; or what each refusal says."""
    for arguments in (
        [f"--{name}={text}"],
        *([[f"--{name}", text]] if text[0] != "-" else []),
        ["--config", str(yaml_file(f"{name}: {text}"))],
    ):
        try:
            told = parse_settings(Few, arguments, prog="p", description="d", short={})
        except UserError as error:
            told = str(error)
        yield getattr(told, name, told)


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_what_only_some_take_for_a_number_is_text(yaml_file, text):
    assert read_yaml(yaml_file(f"a: {text}")) == {"a": text}
    assert set(few(yaml_file, "text", text)) == {text}
    assert set(few(yaml_file, "whole", text)) == {f"`whole` {text}: must be a whole number"}
    assert set(few(yaml_file, "number", text)) == {f"`number` {text}: must be a number or null"}


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("-0", 0), ("+5", 5), ("12", 12), ("0.5", 0.5), ("017.5", 17.5), (".5", 0.5),
     ("2.", 2.0), ("1e3", 1000.0), ("1E3", 1000.0), ("-1.5e-3", -0.0015), ("007e1", 70.0)],
)  # fmt: skip
def test_numbers_are_the_same_in_a_file_and_on_the_command_line(yaml_file, text, value):
    assert read_yaml(yaml_file(f"a: {text}")) == {"a": value}
    assert set(few(yaml_file, "number", text)) == {value}
    if isinstance(value, int):
        assert set(few(yaml_file, "whole", text)) == {value}
    else:
        assert set(few(yaml_file, "whole", text)) == {f"`whole` {value}: must be a whole number"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", "line 2: a is given twice"),
        ("runs:\n  - {a: 1, b: 2}\n  - {a: 1, a: 2}", "line 3: a is given twice"),
        ("a: [{b: {c: 1, c: 1}}]", "line 1: c is given twice"),
        ("- 1", "must hold settings"),
        ("", "holds no settings"),
        ("a: &x 1\nb: *x", "aliases"),
        ("a: !!python/name:os.system", "tags"),
        ("a: [1", "is not valid YAML"),
    ],
)
def test_bad_files_are_one_line_with_their_name(yaml_file, text, message):
    with pytest.raises(UserError) as caught:
        read_yaml(yaml_file(text))
    assert message in str(caught.value)
    assert "a.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nested_and_dotted_names_are_the_same():
    nested = {"optimizer": {"lr": 1e-3}, "model": {"options": {"dropout": 0.3}}, "seed": 3}
    dotted = {"optimizer.lr": 1e-3, "model.options": {"dropout": 0.3}, "seed": 3}
    flat = flat_settings(ClassificationSettings, nested, "a.yaml")
    assert flat == flat_settings(ClassificationSettings, dotted, "a.yaml") == dotted
    settings = build_settings(ClassificationSettings, flat, "a.yaml")
    assert (settings.optimizer.lr, settings.seed) == (1e-3, 3)
    assert settings.model.options == {"dropout": 0.3}
    assert settings.optimizer.nesterov  # the command's default, not the group's


def test_one_entry_of_a_mapping_can_be_set():
    flat = {"model.options": {"a": 1, "b": 2}, "model.options.b": 3}
    settings = build_settings(ClassificationSettings, flat, "a.yaml")
    assert settings.model.options == {"a": 1, "b": 3}
    assert flat["model.options"] == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer.lrr": 1}, "a.yaml: unknown setting optimizer.lrr; did you mean optimizer.lr?"),
        ({"optimizer": {"lr": 1}, "optimizer.lr": 1}, "a.yaml: optimizer.lr is given twice"),
        ({"optimizer": 3}, "a.yaml: optimizer is a group of settings"),
        ({"optimizer.lr.x": 3}, "unknown setting optimizer.lr.x"),
    ],
)
def test_bad_names(values, message):
    with pytest.raises(UserError) as caught:
        flat_settings(ClassificationSettings, values, "a.yaml")
    assert str(caught.value).startswith(message) or message in str(caught.value)


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        ({"optimizer.lr": "fast"}, "a.yaml: `optimizer.lr` fast: must be a number or null"),
        ({"trainer.epochs": 1.5}, "a.yaml: `trainer.epochs` 1.5: must be a whole number"),
        ({"optimizer.name": "adamww"}, "did you mean adamw?"),
    ],
)
def test_bad_values(flat, message):
    with pytest.raises(UserError) as caught:
        build_settings(TrainSettings, flat, "a.yaml")
    assert message in str(caught.value)


def test_settings_round_through_their_flat_form():
    settings = ClassificationSettings()
    settings.model.options = {"width": 4, "stages": [1, 2]}
    settings.augment.resized_crop = (0.2, 1.0)
    flat = flatten(ClassificationSettings, settings.as_dict())
    assert flat["model.options"] == {"width": 4, "stages": [1, 2]}
    assert build_settings(ClassificationSettings, flat, "a.yaml") == settings


def test_saved_options_of_a_network_come_back_as_defaults():
    settings = ClassificationSettings()
    settings.model.options = {"dropout": 0.3}
    again = parse_settings(
        ClassificationSettings, [], prog="p", description="d", short={}, defaults=settings.as_dict()
    )
    assert again == settings


# Files from outside: refused by size and shape, in one line, before they cost anything.


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"seed: !!int abc", "tags"),
        (b"seed: " + b"1" * 10_000, "a number of 10000 digits"),
        (b"optimizer: {betas: [" + b"1" * 400 + b"]}", "a number of 400 digits"),
        (b"a: " + b"{a: " * 2000 + b"1" + b"}" * 2000, "nested more than 20 deep"),
        (b"\n".join(b" " * i + b"a:" for i in range(100)), "nested more than 20 deep"),
        (b"- " * 5000 + b"1", "nested more than 20 deep"),
        (b"\n".join(b"%d: 1" % i for i in range(90_000)), "holds more than 20000 values"),
        (b"a: " + b"x" * 3_000_000, "is larger than 1 MiB"),
        (b"a: &a [1, 2]\nb: [*a, *a]", "aliases"),
        (b"name: caf\xe9", "not a UTF-8 text file"),
        ("seed: 1".encode("utf-16"), "not a UTF-8 text file"),
        (b"name: \x1b[31m", "not valid YAML"),
        (b"trainer:\n\tepochs: 3", "not valid YAML"),
        (b"name: !!binary aGVsbG8=", "tags"),
        (b"<<: {seed: 1}", "unknown setting <<"),
        (b"1: 2", "a name is needed before the colon"),
        (b"~: 2", "a name is needed before the colon"),
        (b".inf: 2", "a name is needed before the colon"),
        (b"config: other.yaml", "unknown setting config"),
        (b"optimizer: {class_path: os.system, init_args: {}}", "unknown setting"),
        (b"seed: 2020-01-01", "must be a whole number"),
        (b"seed: 0o17", "must be a whole number"),
        (b"seed: .inf", "must be a whole number"),
        (b"seed: 1:20", "must be a whole number"),
        (b"optimizer: {lr: 1e400}", "must be above 0"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_hostile_settings_files(tmp_path, content, message):
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(UserError) as caught:
        parse(["--config", str(tmp_path / "a.yaml")])
    told = str(caught.value)
    assert message in told
    assert "\n" not in told
    assert len(told) < 600


@pytest.mark.parametrize(
    "arguments",
    [
        ["--optimizer.lr", "1" * 10_000],
        ["--optimizer.lr=" + "1" * 400],
        ["--optimizer.lr", "[" * 2000],
        ["--optimizer.betas", "[" + "1" * 400 + ", 2]"],
        ["--optimizer.lr", "!!int abc"],
        ["--optimizer.lr", "\udcff"],
        ["--seed", "{"],
    ],
    ids=lambda value: str(value)[:30],
)
def test_hostile_values_of_a_command_line(arguments):
    with pytest.raises(UserError) as caught:
        parse(arguments)
    assert len(str(caught.value)) < 300


def test_mutated_files_are_settings_or_one_line(tmp_path):
    """A seeded part, taken or refused in one line; scripts/fuzz.py reads more."""
    told = fuzz(tmp_path, 60, seed=0)
    assert len(told) > 20
    assert not [line for line in told if "\n" in line or len(line) > 2000]


def fuzz(folder, number, seed):
    """Mutate settings files and studies and read them; what the refusals say."""
    draw = random.Random(seed)
    root = Path(__file__).resolve().parents[2] / "configs"
    files = sorted(root.glob("*/*.yaml"))
    pieces = [
        *(b"!!int x", b"[" * 30, b"\t", b"&a *a", b"\xff", b"\0", b"9" * 5000, b"~", b": ", b"- "),
        *(b"{", b"}", b"]", b"? ", b"|", b">", b"%", b"'", b"#", b"\n", b"---\n", b".inf", b"0o7"),
        *(b"1_0", b"2020-01-01", b"<<: ", b"\xc2\x85", b"\xe2\x80\xae", b"null"),
    ]
    refused = []
    for _ in range(number):
        source = draw.choice(files)
        content = bytearray(source.read_bytes())
        for _ in range(draw.randint(1, 4)):
            at, to = sorted(draw.randrange(len(content) + 1) for _ in range(2))
            kind = draw.randrange(4)
            if kind == 0:
                content[at:at] = draw.choice(pieces)
            elif kind == 1:
                del content[at : min(to, at + draw.randint(1, 40))]
            elif kind == 2 and content:
                content[at % len(content)] = draw.randrange(256)
            else:
                content[at:at] = content[at : min(to, at + 200)]
        file = folder / source.name
        file.write_bytes(content)
        try:
            if source.parent.name == "studies":
                expand(read_study(file), Place())
            elif source.parent.name == "face":
                parse(["--config", str(file)])
            else:
                parse_training(["--config", str(file)])
        except UserError as error:
            refused.append(str(error).strip())
    return refused
