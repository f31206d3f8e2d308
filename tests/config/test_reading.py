"""Reading: YAML's traps are closed, and values become checked settings or one line."""

import pytest

from siamese.cli.parsing import parse_settings
from siamese.config import ClassificationSettings, TrainSettings
from siamese.config.reading import build_settings, flat_settings, flatten, read_yaml
from siamese.errors import UserError


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
        ({"optimizer.lr": "fast"}, "a.yaml: optimizer.lr fast: must be a number or null"),
        ({"trainer.epochs": 1.5}, "a.yaml: trainer.epochs 1.5: must be a whole number"),
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
