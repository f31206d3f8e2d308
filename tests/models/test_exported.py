"""Exported models do what the checkpoint does, and are refused where they are not what they say."""

import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import siamese
from siamese import Embedder
from siamese.config import EmbedSettings, LimitSettings
from siamese.config.using import ExportSettings
from siamese.data.decode import decode
from siamese.data.transforms import Preprocess
from siamese.errors import UserError
from siamese.models.checkpoint import KEYS, read_checkpoint, update_checkpoint, write_checkpoint
from siamese.models.embedder import EmbedderSpec, SiameseEmbedder
from siamese.models.exported import as_text, describe, graph_digest
from siamese.models.exporting import onnx_graph, quantized, with_properties
from siamese.models.loading import load_start_weights, network_of
from siamese.report import model_export
from siamese.report.embedding_sources import embed_people
from siamese.report.model_export import export_model
from siamese.verification.calibration import Calibration
from siamese.verification.decision import Decision

SIZE, DIM = 32, 16
MEAN, STD = (0.4, 0.45, 0.5), (0.2, 0.25, 0.3)
PEOPLE = [f"人{number} x" for number in range(10)]
FORMATS = {"onnx": "best.onnx", "safetensors": "best.safetensors", "torch": "best.pt2"}


def _content(network: SiameseEmbedder, faces: Path) -> dict[str, Any]:
    parts = {"train": PEOPLE[:4], "validation": PEOPLE[4:]}
    return {key: {} for key in KEYS} | {
        "model": network.state_dict(),
        "embedder": network.spec("squash").as_dict(),
        "train_weights": [],
        "progress": {"epoch": 3, "best": float("nan")},
        "settings": {"data": str(faces), "trainer": {"precision": "bf16"}},
        "split": {
            name: {"folder": str(faces), "identities": people, "pictures": 5 * len(people)}
            for name, people in parts.items()
        },
        "figures": {"auc": 0.75, "tar": float("nan")},
        "versions": {"torch": "2"},
        "decision": Decision(0.4, 0.01, Calibration(3.0, -1.0), True, {"origin": "x"}).as_dict(),
    }


@pytest.fixture(scope="module")
def place(draw_people: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `faces`, a random checkpoint, and what was exported of it with its people."""
    place = tmp_path_factory.mktemp("exported")
    draw_people(place / "faces", PEOPLE, images=5)
    torch.manual_seed(0)
    network = SiameseEmbedder("test_resnet", DIM, mean=MEAN, std=STD, size=SIZE)
    network.train()(torch.randint(0, 256, (16, 3, SIZE, SIZE), dtype=torch.uint8))
    write_checkpoint(place / "run" / "best.pt", _content(network.eval(), place / "faces"))
    for to in FORMATS:
        export_model(_settings(place, to=to, people=True))
    return place


@pytest.fixture(scope="module")
def graph(place: Path) -> bytes:
    """The exported graph without any description."""
    model = onnx.load(place / "run" / "best.onnx")
    model.ClearField("metadata_props")
    return model.SerializeToString()


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch, graph: bytes) -> None:
    """Exports take the graph that is there instead of tracing the network again."""
    monkeypatch.setattr(model_export, "onnx_graph", lambda network, spec: graph)


def _settings(place: Path, **more: Any) -> ExportSettings:
    options: dict[str, Any] = {"checkpoint": str(place / "run" / "best.pt"), "workers": 0}
    return ExportSettings(**options | more)


def _pictures(place: Path) -> torch.Tensor:
    files = sorted((place / "faces").glob("*/*.png"))
    return torch.stack([Preprocess(SIZE, "squash")(decode(file, SIZE)) for file in files])


def _scores(vectors: Any) -> np.ndarray:
    unit = np.asarray(vectors, np.float64)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    return np.asarray(unit @ unit.T)


@pytest.fixture(scope="module")
def expected(place: Path) -> np.ndarray:
    """Scores of all pictures by the checkpoint itself."""
    return _scores(Embedder.load(place / "run" / "best.pt", "cpu").embed(place / "faces"))


def test_onnx_takes_pixels_and_gives_the_scores_of_the_checkpoint(
    place: Path, expected: np.ndarray
) -> None:
    """By onnxruntime alone, with any number of pictures."""
    session = onnxruntime.InferenceSession(place / "run" / "best.onnx")
    pixels = _pictures(place).permute(0, 2, 3, 1).numpy().copy()
    (whole,) = session.run(["embeddings"], {"images": pixels})
    assert (whole.shape, whole.dtype) == ((50, DIM), np.float32)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(_scores(whole), expected, atol=1e-4, rtol=0)
    assert np.ptp(expected) > 0.05
    for number in (1, 7):
        (some,) = session.run(None, {"images": pixels[:number]})
        np.testing.assert_allclose(some, whole[:number], atol=1e-5)


def test_properties_tell_other_programs_what_they_need(place: Path) -> None:
    session = onnxruntime.InferenceSession(place / "run" / "best.onnx")
    found = session.get_modelmeta().custom_metadata_map
    mark = Embedder.load(place / "run" / "best.pt", "cpu").fingerprint
    assert {key: found[key] for key in ("size", "fit", "color_order", "fingerprint")} == {
        "size": "32", "fit": "squash", "color_order": "RGB", "fingerprint": mark,
    }  # fmt: skip
    assert (float(found["threshold"]), float(found["target_fmr"])) == (0.4, 0.01)
    assert json.loads(found["calibration"]) == {"slope": 3.0, "offset": -1.0}
    assert json.loads(found["siamese"])["split"]["train"]["identities"] == PEOPLE[:4]


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.usefixtures("fast")
def test_nobody_is_named_unless_it_is_asked_for(place: Path, tmp_path: Path, to: str) -> None:
    out = tmp_path / FORMATS[to]
    export_model(_settings(place, to=to, out=str(out)))
    data = out.read_bytes()
    for secret in (PEOPLE[0], json.dumps(PEOPLE[0])[1:-1], str(place)):
        assert secret.encode() not in data
        assert secret.encode() in (place / "run" / "best.pt").read_bytes() or "\\u" in secret
    assert b"models/embedder.py" not in data or to == "torch"
    if to != "torch":
        with pytest.raises(UserError, match=r"exported without the people.*`people` true"):
            embed_people(EmbedSettings(checkpoint=str(out), device="cpu", workers=0))
        judged = EmbedSettings(
            checkpoint=str(out), data=str(place / "faces"), device="cpu", workers=0
        )
        people = embed_people(judged)
        assert len(people.labels) == 50
        assert "does not say who trained it" in people.notes[0]


@pytest.mark.parametrize("name", ["best.onnx", "best.safetensors"])
def test_a_content_comes_back(place: Path, name: str) -> None:
    before = read_checkpoint(place / "run" / "best.pt")
    after = read_checkpoint(place / "run" / name, keys=["split", "figures", "settings"])
    for key in ("embedder", "split", "decision", "versions"):
        assert after[key] == before[key]
    assert after["settings"] == before["settings"]
    assert after["figures"] == {"auc": 0.75}
    with pytest.raises(UserError, match="an exported model has no optimizer"):
        read_checkpoint(place / "run" / name)
    with pytest.raises(UserError, match=r"its kind is embedder .* classifier"):
        read_checkpoint(place / "run" / name, "classifier")


def test_safetensors_are_the_weights_bit_for_bit(place: Path) -> None:
    before = read_checkpoint(place / "run" / "best.pt")["model"]
    with safe_open(place / "run" / "best.safetensors", "pt") as file:
        assert set(file.keys()) == set(before)
        assert all(torch.equal(file.get_tensor(name), before[name]) for name in before)
    models = [
        Embedder.load(place / "run" / name, "cpu") for name in ("best.pt", "best.safetensors")
    ]
    assert models[0].precision == models[1].precision
    a, b = (model.embed(place / "faces") for model in models)
    assert a.tobytes() == b.tobytes()
    other = SiameseEmbedder("test_resnet", DIM, size=SIZE)
    load_start_weights(other, place / "run" / "best.safetensors")
    assert torch.equal(other.head.weight, before["head.weight"])


def test_a_torch_archive_runs_by_torch_alone(place: Path, expected: np.ndarray) -> None:
    extra = {"siamese.json": ""}
    archive = torch.export.load(place / "run" / "best.pt2", extra_files=extra).module()
    with torch.no_grad():
        found = archive(_pictures(place).permute(0, 2, 3, 1))
        assert archive(torch.zeros(1, SIZE, SIZE, 3, dtype=torch.uint8)).shape == (1, DIM)
    np.testing.assert_allclose(_scores(found), expected, atol=1e-4, rtol=0)
    assert json.loads(extra["siamese.json"])["embedder"]["size"] == SIZE


def test_an_onnx_verifies_as_the_checkpoint_does(place: Path, expected: np.ndarray) -> None:
    files = sorted((place / "faces").glob("*/*.png"))[:2]
    a, b = (Embedder.load(place / "run" / n, "cpu") for n in ("best.pt", "best.onnx"))
    assert a.fingerprint == b.fingerprint
    assert a.decision == b.decision
    one, other = (model.verify(*files) for model in (a, b))
    assert other.score == pytest.approx(one.score, abs=1e-4)
    assert (other.threshold, other.same, other.target_fmr) == (one.threshold, one.same, 0.01)
    found = Embedder.load(place / "run" / "best.onnx", batch=7).embed(place / "faces")
    np.testing.assert_allclose(_scores(found), expected, atol=1e-4, rtol=0)


def test_a_fingerprint_is_of_everything_that_an_embedding_depends_on(
    place: Path, tmp_path: Path
) -> None:
    marks = {Embedder.load(place / "run" / name, "cpu").fingerprint for name in FORMATS.values()
             if not name.endswith("pt2")}  # fmt: skip
    assert len(marks) == 1
    content = read_checkpoint(place / "run" / "best.pt")
    content["embedder"]["fit"] = "crop"
    write_checkpoint(tmp_path / "fit.pt", content)
    content["embedder"]["fit"] = "squash"
    content["model"]["head.bias"][0] += 1e-6
    write_checkpoint(tmp_path / "bias.pt", content)
    marks |= {Embedder.load(tmp_path / n, "cpu").fingerprint for n in ("fit.pt", "bias.pt")}
    assert len(marks) == 3


# Quantised


@pytest.mark.usefixtures("fast")
def test_int8_is_another_model_and_its_cost_is_judged(
    place: Path, tmp_path: Path, expected: np.ndarray
) -> None:
    out = tmp_path / "small.onnx"
    told: list[str] = []
    done = export_model(_settings(place, out=str(out), quantize="int8"), say=told.append)
    assert any("20 pictures" in line for line in told)  # those that it was trained on
    assert done.cost is not None
    assert done.cost.before is not None
    assert done.cost.people.startswith("6 people")
    assert done.cost.auc.interval is not None
    assert done.size < (place / "run" / "best.onnx").stat().st_size / 2
    model = Embedder.load(out, "cpu")
    assert model.fingerprint == done.fingerprint
    assert model.fingerprint != Embedder.load(place / "run" / "best.pt", "cpu").fingerprint
    difference = np.abs(_scores(model.embed(place / "faces")) - expected).max()
    assert 1e-4 < difference < 0.1
    kinds = {one.data_type for one in onnx.load(out).graph.initializer}
    assert TensorProto.INT8 in kinds


@pytest.mark.usefixtures("fast")
def test_int8_that_is_worse_is_not_written(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worse = SimpleNamespace(name="auc", a=0.9, b=0.8, difference=-0.1, interval=(-0.2, -0.05))
    monkeypatch.setattr(model_export, "differences_of", lambda a, b: (worse,))
    monkeypatch.setattr(model_export, "quantized", lambda graph, batches: graph)
    out = tmp_path / "small.onnx"
    out.write_bytes(b"before")
    with pytest.raises(UserError, match=r"not written: int8 is worse, .*\[-0.2000, -0.0500\]"):
        export_model(_settings(place, out=str(out), quantize="int8"))
    assert out.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["small.onnx"]


@pytest.mark.usefixtures("fast")
def test_people_of_a_foreign_folder_calibrate_or_judge_never_both(
    place: Path, tmp_path: Path, draw_people: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    others = draw_people(tmp_path / "others", [*"abcdef"], images=3, seed=1)
    seen: list[int] = []

    def count(graph: bytes, batches: Iterator[np.ndarray]) -> bytes:
        seen.extend(len(batch) for batch in batches)
        return graph

    monkeypatch.setattr(model_export, "quantized", count)
    settings = _settings(place, out=str(tmp_path / "x.onnx"), quantize="int8", data=str(others))
    done = export_model(settings)
    assert sum(seen) == 9
    assert done.cost is not None
    assert done.cost.people.startswith("3 people")
    assert done.cost.auc.difference == pytest.approx(0, abs=1e-3)


def test_what_cannot_be_quantised_is_one_line() -> None:
    with pytest.raises(UserError, match="onnxruntime cannot do it"):
        quantized(helper.make_model(helper.make_graph([], "g", [], [])).SerializeToString(), [])


# Checked before it is kept


def test_other_scores_are_not_written(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graph: bytes
) -> None:
    model = onnx.load_model_from_string(graph)
    head = next(one for one in model.graph.initializer if one.name.endswith("head.weight"))
    changed = numpy_helper.to_array(head).copy()
    changed[0] *= 1.1
    head.CopyFrom(numpy_helper.from_array(changed, head.name))
    monkeypatch.setattr(model_export, "onnx_graph", lambda *_: model.SerializeToString())
    with pytest.raises(UserError, match=r"not written: scores of the exported model differ by"):
        export_model(_settings(place, out=str(tmp_path / "x.onnx")))
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("fast")
def test_without_pictures_it_is_checked_on_noise_and_said(place: Path, tmp_path: Path) -> None:
    content = read_checkpoint(place / "run" / "best.pt")
    for part in content["split"].values():
        part["folder"] = str(tmp_path / "gone")
    write_checkpoint(tmp_path / "best.pt", content)
    settings = _settings(place, checkpoint=str(tmp_path / "best.pt"))
    done = export_model(settings)
    assert done.on.startswith("generated noise")
    assert (done.path, done.checked) == (tmp_path / "best.onnx", 64)
    settings.data = str(place / "faces")
    done = export_model(settings)
    assert (done.on, done.checked) == (f"pictures of {place / 'faces'}", 30)
    settings.data, settings.quantize = None, "int8"
    with pytest.raises(UserError, match="give its new place with `data`"):
        export_model(settings)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"out": "x.pt"}, "`out` x.pt: the file's name must end in .onnx"),
        ({"to": "torch", "quantize": "int8"}, "`quantize` int8: is there with `to` onnx only"),
        ({"to": "coreml"}, "`to` coreml: must be one of onnx, safetensors, torch"),
        ({"checkpoint": "nowhere"}, "nowhere: no such checkpoint"),
        ({"pictures": 0}, "`pictures` 0: must be at least 1"),
    ],
)
def test_settings_that_cannot_work(place: Path, more: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        export_model(_settings(place, **more))


def test_a_file_is_never_written_over_its_source(place: Path, tmp_path: Path) -> None:
    source = place / "run" / "best.safetensors"
    before = source.read_bytes()
    with pytest.raises(UserError, match="is the model that is read; give another file"):
        siamese.export(source, source, to="safetensors", workers=0)
    assert source.read_bytes() == before
    with pytest.raises(UserError, match="is exported already"):
        siamese.export(place / "run" / "best.onnx", workers=0)
    (tmp_path / "x.onnx").mkdir()
    with pytest.raises(UserError, match="is a folder; give the file to write"):
        siamese.export(source, tmp_path / "x.onnx")
    with pytest.raises(UserError, match="unexpected keyword argument 'too'"):
        siamese.export(source, too="onnx")


@pytest.mark.usefixtures("fast")
def test_safetensors_export_on(place: Path, tmp_path: Path) -> None:
    source, out = place / "run" / "best.safetensors", tmp_path / "x.onnx"
    assert siamese.export(source, out, workers=0).difference is not None
    assert Embedder.load(out).fingerprint == Embedder.load(source, "cpu").fingerprint


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3, stride=2)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.convolution(pixels).relu().mean((2, 3))


def test_a_module_of_ones_own_is_exported_in_python(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)
    network = SiameseEmbedder(_Net(), 4, size=SIZE).eval()
    path = tmp_path / "own.pt"
    write_checkpoint(path, _content(network, place / "faces"))
    with pytest.raises(UserError, match=r"_Net, which the file does not hold; export it in Pyth"):
        siamese.export(path, workers=0)
    assert siamese.export(path, backbone=_Net(), workers=0).checked == 30
    mark = siamese.export(path, to="safetensors").fingerprint
    with pytest.raises(UserError, match="which the file does not hold"):
        Embedder.load(tmp_path / "own.safetensors")
    models = [
        Embedder.load(path, "cpu", backbone=_Net()),
        Embedder.load(tmp_path / "own.safetensors", "cpu", backbone=_Net()),
        Embedder.load(tmp_path / "own.onnx"),
    ]
    assert {model.fingerprint for model in models} == {mark}
    scores = [_scores(model.embed(place / "faces")) for model in models]
    np.testing.assert_allclose(scores[1], scores[0], atol=0)
    np.testing.assert_allclose(scores[2], scores[0], atol=1e-4)
    with pytest.raises(UserError, match="leave `backbone` out"):
        Embedder.load(tmp_path / "own.onnx", backbone=_Net())


class _Untraceable(_Net):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        features = super().forward(pixels)
        return features * 2 if float(features.sum()) > 0 else features


def test_a_network_that_cannot_be_exported_is_one_line() -> None:
    network = SiameseEmbedder(_Untraceable(), 4, size=SIZE).eval()
    with pytest.raises(UserError, match="_Untraceable: torch cannot export this network"):
        onnx_graph(network, network.spec("squash"))


@pytest.mark.parametrize("name", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_extra_is_one_line(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    wanted = rf"needs the library {name}, .*: pip install 'siamese\[onnx\]'"
    with pytest.raises(UserError, match=wanted):
        export_model(_settings(place))
    if name != "onnxscript":
        with pytest.raises(UserError, match=f"best.onnx: {wanted}"):
            Embedder.load(place / "run" / "best.onnx")


# Refused


def _described(place: Path, graph: bytes, **other: Any) -> bytes:
    """A graph with a description that fits it, whatever it is."""
    content = read_checkpoint(place / "run" / "best.pt")
    digest = graph_digest(graph, Path("x"), LimitSettings())
    described = {**describe(content, "0" * 64, graph=digest), **other}
    return with_properties(graph, {"siamese": as_text(described)})


def _refused(tmp_path: Path, data: bytes, name: str = "x.onnx") -> str:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError) as told:
        Embedder.load(tmp_path / name)
    said = str(told.value)
    assert name in said
    assert "\n" not in said
    return said


def _external(model: Any) -> None:
    tensor = next(one for one in model.graph.initializer if one.HasField("raw_data"))
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/passwd")


def _external_in_a_node(model: Any) -> None:
    tensor = numpy_helper.from_array(np.zeros(1, np.float32))
    tensor.external_data.add(key="location", value="/etc/passwd")
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))


def _foreign(model: Any) -> None:
    model.graph.node[0].domain = "com.example\n"
    model.opset_import.add(domain="com.example", version=1)


def _looped(model: Any) -> None:
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("Loop", ["", ""], ["never"], body=body))


def _with_function(model: Any) -> None:
    node = helper.make_node("Relu", ["a"], ["b"])
    made = helper.make_function("own", "f", ["a"], ["b"], [node], [helper.make_opsetid("", 20)])
    model.functions.append(made)


def _of_another_size(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 64


def _with_another_output(model: Any) -> None:
    model.graph.output[0].name = model.graph.node[-1].output[0] = "features"


def _broken(model: Any) -> None:
    model.graph.node[3].op_type = "NoSuchOperator"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_external, "keeps weights in other files, which are not read"),
        (_external_in_a_node, "keeps weights in other files, which are not read"),
        (_foreign, "has operators of com.example"),
        (_looped, "has graphs in its graph"),
        (_with_function, "has graphs in its graph"),
        (_of_another_size, "onnxruntime cannot run it|takes or gives something else"),
        (_with_another_output, "onnxruntime cannot run it|takes or gives something else"),
        (_broken, "onnxruntime cannot run it"),
    ],
)
def test_a_graph_that_is_no_plain_embedder_is_refused(
    place: Path, tmp_path: Path, graph: bytes, change: Callable[[Any], None], said: str
) -> None:
    model = onnx.load_model_from_string(graph)
    change(model)
    found = _refused(tmp_path, _described(place, model.SerializeToString()))
    assert any(one in found for one in said.split("|")), found


def test_foreign_and_changed_files_are_refused(place: Path, tmp_path: Path, graph: bytes) -> None:
    assert "no model of siamese, it lacks the description" in _refused(tmp_path, graph)
    weights = {"a": torch.zeros(3)}
    save_file(weights, tmp_path / "x.safetensors", metadata={"format": "pt"})
    found = _refused(tmp_path, (tmp_path / "x.safetensors").read_bytes(), "x.safetensors")
    assert "no model of siamese" in found
    whole = (place / "run" / "best.onnx").read_bytes()
    other = onnx.load_model_from_string(whole)
    other.graph.initializer[0].raw_data = bytes(len(other.graph.initializer[0].raw_data))
    assert "its graph is another one" in _refused(tmp_path, other.SerializeToString())
    data = bytearray((place / "run" / "best.safetensors").read_bytes())
    data[-1] ^= 1
    found = _refused(tmp_path, bytes(data), "x.safetensors")
    assert "its weights are not those that it describes" in found
    for text in (b"", b"hello", whole[:1000]):
        assert "not a readable .onnx file" in _refused(tmp_path, text)
        assert "not a readable .safetensors" in _refused(tmp_path, text, "x.safetensors")
    assert "written by a newer siamese" in _refused(tmp_path, _described(place, graph, version=2))
    assert "fingerprint" in _refused(tmp_path, _described(place, graph, fingerprint="x"))
    damaged = _described(place, graph, embedder={"size": 10**9})
    assert "is damaged, its embedder" in _refused(tmp_path, damaged)
    spec = read_checkpoint(place / "run" / "best.onnx", keys=[])["embedder"]
    less = _described(place, graph, embedder={**spec, "embedding_dim": 8})
    assert "gives something else than it describes" in _refused(tmp_path, less)
    bad = _described(place, graph, decision={"threshold": "x"})
    assert "its threshold cannot be used" in _refused(tmp_path, bad)


@pytest.mark.parametrize("name", ["best.onnx", "best.safetensors"])
def test_sizes_are_looked_at_first(place: Path, name: str) -> None:
    for limits, said in (
        (LimitSettings(weights=1e-4), "its weights take more than 0.0001 GiB"),
        (LimitSettings(description=1e-3), "beside the weights takes more than 0.001 MiB"),
    ):
        with pytest.raises(UserError, match=said):
            read_checkpoint(place / "run" / name, keys=[], limits=limits)


@pytest.mark.parametrize("field", [b"\x0a", b"\x2a"])  # nodes, weights
def test_many_small_messages_are_not_made(tmp_path: Path, field: bytes) -> None:
    """Two bytes of the file are a whole object once it is parsed."""
    inside = (field + b"\x00") * 500_000
    size, varint = len(inside), b""
    while size > 127:
        varint, size = varint + bytes([size & 127 | 128]), size >> 7
    (tmp_path / "x.onnx").write_bytes(b"\x3a" + varint + bytes([size]) + inside)
    with pytest.raises(UserError, match="takes more than 16 MiB"):
        read_checkpoint(tmp_path / "x.onnx", limits=LimitSettings(description=16))


@pytest.mark.parametrize("name", ["best.onnx", "best.safetensors"])
def test_mutated_files_end_in_one_line(place: Path, tmp_path: Path, name: str) -> None:
    whole = (place / "run" / name).read_bytes()
    draw = random.Random(0)
    path = tmp_path / name
    # Half of the changes where the structure is, the others anywhere.
    starts = [0, len(whole) - 3000] if name.endswith("onnx") else [0, 9000]
    told: list[str] = []
    for _ in range(200):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            near = draw.choice([*starts, None])
            at = draw.randrange(len(data)) if near is None else near + draw.randrange(3000)
            kind = draw.randrange(4)
            if kind == 0:
                data[at] ^= 1 << draw.randrange(8)
            elif kind == 1:
                del data[at : at + draw.randint(1, 40)]
            elif kind == 2:
                data[at:at] = draw.randbytes(draw.randint(1, 40))
            else:
                del data[at:]
                break
            if len(data) < 6000:
                break
        path.write_bytes(data)
        try:
            content = read_checkpoint(path, keys=[])
            network_of(content, path, "cpu")[0](torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8))
        except UserError as error:
            told.append(str(error))
    assert len(told) > 150
    assert not any("\n" in line for line in told)


# What an exported model cannot do


@pytest.mark.parametrize("name", ["best.onnx", "best.safetensors"])
def test_nothing_is_written_into_an_exported_model(place: Path, name: str) -> None:
    path = place / "run" / name
    before = path.read_bytes()
    with pytest.raises(UserError, match="choose it for the checkpoint and export again"):
        update_checkpoint(path, "decision", {})
    assert path.read_bytes() == before


def test_a_graph_runs_where_onnxruntime_can(place: Path) -> None:
    path = place / "run" / "best.onnx"
    with pytest.raises(UserError, match="`precision` bf16: an exported graph runs in"):
        Embedder.load(path, precision="bf16")
    assert Embedder.load(path, precision="fp32").precision == torch.float32
    with pytest.raises(UserError, match="`device` mps: onnxruntime runs"):
        Embedder.load(path, "mps")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(UserError, match="`device` cuda:0: the onnxruntime that is installed"):
            Embedder.load(path, "cuda:0")
    network = Embedder.load(path).network
    with pytest.raises(UserError, match=r"best.onnx: fails on pictures \(1, 3, 64, 64\)"):
        network(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    with pytest.raises(UserError, match=r"best\.onnx: fails on pictures"):
        network(torch.zeros(1, 3, SIZE, SIZE))


def test_a_spec_is_read_back(place: Path) -> None:
    spec = Embedder.load(place / "run" / "best.onnx").spec
    assert spec == EmbedderSpec("test_resnet", DIM, SIZE, "squash", *_pixels(place))


def _pixels(place: Path) -> tuple[Any, Any]:
    spec = Embedder.load(place / "run" / "best.pt", "cpu").spec
    return spec.mean, spec.std
