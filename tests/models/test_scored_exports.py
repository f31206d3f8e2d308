"""Exported models score as the checkpoint does where that has a fitted scoring."""

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from siamese import Embedder, Gallery
from siamese.config import FittedName
from siamese.config.using import ExportSettings, check_export
from siamese.errors import UserError
from siamese.models.checkpoint import read_checkpoint, update_checkpoint
from siamese.models.onnx_network import OnnxNetwork
from siamese.models.scoring import FittedOn, ScoringMap
from siamese.report.model_export import export_model
from siamese.verification.calibration import Calibration
from siamese.verification.decision import Decision
from tests.runs import write_random_model

FITTED = FittedOn(20, 100, False, None, "2026-01-01T00:00:00+00:00")
DIM, KEPT = 8, 5
DIMENSIONS = {"plda": KEPT, "wccn": 2 * DIM}
SUFFIXES = {"onnx": ".onnx", "safetensors": ".safetensors", "torch": ".pt2"}


def scoring(kind: FittedName = "plda") -> ScoringMap:
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(DIM, KEPT if kind == "plda" else DIM)).astype(np.float32)
    return ScoringMap(rng.normal(size=DIM).astype(np.float32) / 4, matrix, FITTED, kind)


def decided(flip: bool = False, **more: Any) -> dict[str, Any]:
    return Decision(0.4, 0.01, Calibration(3.0, -1.0), flip, **more).as_dict()


PLDA = {"scoring": "plda", "map": scoring().digest}


both = pytest.mark.parametrize("best", DIMENSIONS, indirect=True)


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[FittedName], Path]:
    """A checkpoint with a map and a threshold that was chosen with it, and all exports of it."""

    @cache
    def make(kind: FittedName) -> Path:
        made = scoring(kind)
        decision = decided(scoring=kind, map=made.digest)
        best = tmp_path_factory.mktemp("scored") / "run" / "best.pt"
        write_random_model(best, scoring=made.as_dict(), decision=decision)
        for to in SUFFIXES:
            exported(best, to)
        return best.parent

    return make


@pytest.fixture
def best(
    once: Callable[[FittedName], Path], tmp_path: Path, request: pytest.FixtureRequest
) -> Path:
    """A copy of the checkpoint, to be changed, with its exports beside it; PLDA unless asked."""
    kind = getattr(request, "param", "plda")
    return Path(shutil.copytree(once(kind), tmp_path / "run")) / "best.pt"


def kind_of(best: Path) -> str:
    return str(read_checkpoint(best)["decision"]["scoring"])


def exported(best: Path, to: str, **more: Any) -> Path:
    settings = ExportSettings(checkpoint=str(best), to=to, workers=0, **more)  # type: ignore[arg-type]
    check_export(settings)
    return export_model(settings).path


def scores(vectors: np.ndarray) -> np.ndarray:
    unit = vectors.astype(np.float64)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    return np.asarray(unit @ unit.T)


@both
@pytest.mark.parametrize("to", ["onnx", "safetensors"])
def test_the_exported_model_scores_as_the_checkpoint(
    best: Path, face_folder: Path, tmp_path: Path, to: str
) -> None:
    model = Embedder.load(best, "cpu")
    expected = scores(model.embed(face_folder))
    plain = Embedder.load(best, "cpu", scoring="cosine").embed(face_folder)
    assert np.abs(expected - scores(plain)).max() > 5e-3
    out = best.with_suffix(SUFFIXES[to])
    other = Embedder.load(out, "cpu")
    found = other.embed(face_folder)
    assert found.shape[1] == other.dimensions == DIMENSIONS[kind_of(best)]
    assert other.scoring.name == kind_of(best)
    np.testing.assert_allclose(scores(found), expected, atol=1e-4, rtol=0)
    assert (other.fingerprint, other.decision) == (model.fingerprint, model.decision)
    assert other.decision is not None
    with Gallery(tmp_path / "g.db", model) as gallery:
        gallery.enroll_folder(face_folder)
    name = next(path.name for path in sorted(face_folder.iterdir()) if path.is_dir())
    found_one = Gallery(tmp_path / "g.db", other).identify(face_folder / name / "0.png")
    assert found_one.candidates[0].name == name
    assert found_one.candidates[0].score == pytest.approx(1, abs=1e-4)


@both
def test_other_programs_get_dot_products_that_are_the_scores(best: Path, face_folder: Path) -> None:
    model = Embedder.load(best, "cpu")
    session = onnxruntime.InferenceSession(best.with_suffix(".onnx"))
    files = sorted(face_folder.glob("*/*.png"))[:9]
    pixels = torch.stack([model.prepare(one) for one in _rgb(files)]).permute(0, 2, 3, 1)
    (found,) = session.run(["embeddings"], {"images": pixels.numpy().copy()})
    assert found.shape == (9, DIMENSIONS[kind_of(best)])
    np.testing.assert_allclose(found @ found.T, scores(model.embed(files)), atol=1e-4, rtol=0)
    properties = session.get_modelmeta().custom_metadata_map
    assert properties["scoring"] == kind_of(best)
    assert properties["fingerprint"] == model.fingerprint


def _rgb(files: list[Path]) -> Any:
    from siamese.data.in_memory import rgb_pictures

    return rgb_pictures(files, 32)


@both
def test_a_torch_archive_maps_too(best: Path, face_folder: Path) -> None:
    archive = torch.export.load(best.with_suffix(".pt2")).module()
    model = Embedder.load(best, "cpu")
    files = sorted(face_folder.glob("*/*.png"))[:9]
    pixels = torch.stack([model.prepare(one) for one in _rgb(files)]).permute(0, 2, 3, 1)
    with torch.no_grad():
        found = archive(pixels).numpy()
    np.testing.assert_allclose(found @ found.T, scores(model.embed(files)), atol=1e-4, rtol=0)


def test_the_scoring_that_is_asked_for(best: Path, face_folder: Path) -> None:
    """The threshold stays behind where it is that of the other one."""
    lines: list[str] = []
    settings = ExportSettings(checkpoint=str(best), scoring="cosine", workers=0)
    out = export_model(settings, say=lines.append).path
    plain = Embedder.load(out, "cpu")
    cosine = Embedder.load(best, "cpu", scoring="cosine")
    assert (plain.dimensions, plain.decision) == (DIM, None)
    assert plain.fingerprint == cosine.fingerprint
    assert any("was chosen with `scoring` plda, so it is left out" in line for line in lines)
    update_checkpoint(best, "decision", decided())  # the cosine's
    mapped = Embedder.load(exported(best, "onnx", scoring="plda"), "cpu")
    assert (mapped.dimensions, mapped.decision) == (KEPT, None)
    expected = scores(Embedder.load(best, "cpu", scoring="plda").embed(face_folder))
    np.testing.assert_allclose(scores(mapped.embed(face_folder)), expected, atol=1e-4, rtol=0)
    # A .safetensors holds what the checkpoint does.
    weights = exported(best, "safetensors")
    assert Embedder.load(weights, "cpu").dimensions == DIM
    assert Embedder.load(weights, "cpu").decision is not None
    found = Embedder.load(weights, "cpu", scoring="plda").embed(face_folder)
    np.testing.assert_array_equal(
        found, Embedder.load(best, "cpu", scoring="plda").embed(face_folder)
    )


def test_what_a_graph_cannot_do_is_one_line(best: Path, face_folder: Path) -> None:
    out = best.with_suffix(".onnx")
    model = Embedder.load(out, "cpu")
    with pytest.raises(UserError, match=r"`flip` true: the graph .*best\.onnx maps each embedding"):
        model.embed(face_folder, flip=True)
    with pytest.raises(UserError, match=r"`scoring` cosine: .*was exported with its PLDA scoring"):
        Embedder.load(out, "cpu", scoring="cosine")
    assert Embedder.load(out, "cpu", scoring="plda").fingerprint == model.fingerprint
    with pytest.raises(UserError, match=r"`quantize` int8: is there with `scoring` cosine only"):
        exported(best, "onnx", quantize="int8", data=str(face_folder))
    with pytest.raises(UserError, match="holds all of them; choose where it is used"):
        exported(best, "safetensors", scoring="plda")
    before = out.read_bytes()
    with pytest.raises(UserError, match=r"`flip`: a \.safetensors holds weights alone"):
        exported(best, "safetensors", flip=True)
    assert out.read_bytes() == before
    update_checkpoint(best, "decision", decided(flip=True, **PLDA))
    weights = Embedder.load(exported(best, "safetensors"), "cpu")
    files = sorted(face_folder.glob("*/*.png"))[:2]
    assert weights.verify(*files) == Embedder.load(best, "cpu").verify(*files)
    update_checkpoint(best, "decision", decided(), without="scoring")
    for to in ("onnx", "torch"):
        with pytest.raises(UserError, match="holds no PLDA; fit it with siamese-eval plda"):
            exported(best, to, scoring="plda")
    exported(best, "safetensors")
    with pytest.raises(UserError, match=r"fit it for the checkpoint .* and export it again"):
        Embedder.load(best.with_suffix(".safetensors"), "cpu", scoring="plda")


@pytest.mark.parametrize("best", ["wccn"], indirect=True)
def test_a_graph_of_one_scoring_has_no_other(best: Path) -> None:
    out = best.with_suffix(".onnx")
    for other in ("cosine", "plda"):
        with pytest.raises(
            UserError, match=f"`scoring` {other}: .*with its WCCN scoring.* `scoring` {other}$"
        ):
            Embedder.load(out, "cpu", scoring=other)
    assert Embedder.load(out, "cpu", scoring="wccn").scoring.name == "wccn"
    weights = best.with_suffix(".safetensors")
    with pytest.raises(
        UserError, match=r"holds WCCN, not PLDA; .* \(siamese-eval plda\) and export"
    ):
        Embedder.load(weights, "cpu", scoring="plda")
    with pytest.raises(UserError, match="holds WCCN, not PLDA; fit it with siamese-eval plda"):
        exported(best, "onnx", scoring="plda")


def _rewrite(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Change a .safetensors: its tensors and its description."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        described = json.loads(file.metadata()["siamese"])
    change(tensors, described)
    save_file(tensors, path, metadata={"format": "pt", "siamese": json.dumps(described)})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t, d: t["scoring.matrix"].mul_(2), "is not the one that it describes"),
        (lambda t, d: t.pop("scoring.centre"), "is not the one that it describes"),
        (lambda t, d: t.update({"scoring.matrix": torch.ones(3)}), "is not the one that it desc"),
        (lambda t, d: d["scoring"].update(digest="x"), "its scoring cannot be used"),
        (lambda t, d: d["scoring"].update(dimensions=10**9), "its scoring cannot be used"),
        (lambda t, d: d["scoring"].update(more=1), "its scoring cannot be used"),
        (lambda t, d: d["scoring"].update(fitted=[]), "its scoring cannot be used"),
        (lambda t, d: d.update(scoring=1), "its scoring cannot be used"),
    ],
)
def test_a_changed_safetensors_is_refused(
    best: Path, change: Callable[[dict[str, Any], dict[str, Any]], None], said: str
) -> None:
    path = best.with_suffix(".safetensors")
    _rewrite(path, lambda tensors, described: None)
    assert Embedder.load(path, "cpu").dimensions == KEPT
    _rewrite(path, change)
    with pytest.raises(UserError, match=rf"best\.safetensors: is damaged, .*{said}"):
        Embedder.load(path, "cpu")


@pytest.mark.parametrize("best", ["wccn"], indirect=True)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(kind="lda"), "its scoring cannot be used"),
        (lambda d: d.update(kind=["wccn"]), "its scoring cannot be used"),
        (lambda d: d.update(kind="plda"), "its scoring cannot be used"),
        (lambda d: d.update(kind="plda", dimensions=DIM), "is not the one that it describes"),
        (lambda d: d.update(dimensions=DIM), "its scoring cannot be used"),
    ],
)
def test_a_changed_kind_is_refused(
    best: Path, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    path = best.with_suffix(".safetensors")
    _rewrite(path, lambda tensors, described: change(described["scoring"]))
    with pytest.raises(UserError, match=rf"best\.safetensors: is damaged, .*{said}"):
        Embedder.load(path, "cpu")


def test_a_graph_of_other_dimensions_than_it_says_is_refused(
    best: Path,
) -> None:
    path = best.with_suffix(".onnx")
    model = onnx.load(path)
    for entry in model.metadata_props:
        if entry.key == "siamese":
            described = json.loads(entry.value)
            described["scoring"]["dimensions"] = KEPT - 1
            entry.value = json.dumps(described)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="gives something else than it describes"):
        Embedder.load(path, "cpu")


def test_nothing_of_people_is_in_an_export(best: Path) -> None:
    content = read_checkpoint(best.with_suffix(".safetensors"), keys=["figures"])
    assert set(content["scoring"]) == {"centre", "matrix", "fitted"}
    assert set(content["scoring"]["fitted"]) == {"people", "pictures", "flip", "crop", "fitted_at"}


# Averages with the mirrored picture, inside the graph

AVERAGED = (None, "plda", "wccn")


@pytest.fixture(scope="module")
def averaging(tmp_path_factory: pytest.TempPathFactory) -> Callable[[FittedName | None], Path]:
    """A checkpoint whose threshold was chosen for averages and one scoring, and its graphs."""

    @cache
    def make(kind: FittedName | None) -> Path:
        best = tmp_path_factory.mktemp("averaging") / "run" / "best.pt"
        if kind is None:
            write_random_model(best, decision=decided(True))
        else:
            made = scoring(kind)
            decision = decided(True, scoring=kind, map=made.digest)
            write_random_model(best, scoring=made.as_dict(), decision=decision)
        for to in ("onnx", "torch"):
            exported(best, to)
        return best

    return make


def _lopsided(place: Path) -> list[Path]:
    """Pictures that differ much from their mirrored ones."""
    rng = np.random.default_rng(5)
    files = [place / f"{number}.png" for number in range(9)]
    for file in files:
        blocks = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((32, 32), Image.Resampling.NEAREST).save(file)
    return files


@pytest.mark.parametrize("kind", AVERAGED)
def test_a_graph_averages_where_the_threshold_was_chosen_so(
    averaging: Callable[[FittedName | None], Path], tmp_path: Path, kind: FittedName | None
) -> None:
    best = averaging(kind)
    files = _lopsided(tmp_path)
    model = Embedder.load(best, "cpu")
    bare = np.abs(scores(model.embed(files)) - scores(model.embed(files, flip=False)))
    assert bare.max() > 1e-3  # fifty times what is allowed below
    pixels = torch.stack([model.prepare(one) for one in _rgb(files)]).permute(0, 2, 3, 1)
    session = onnxruntime.InferenceSession(best.with_suffix(".onnx"))
    (given,) = session.run(["embeddings"], {"images": pixels.numpy().copy()})
    archive = torch.export.load(best.with_suffix(".pt2")).module()
    for found in (given, archive(pixels).detach().numpy()):
        np.testing.assert_allclose(found @ found.T, scores(model.embed(files)), atol=2e-5, rtol=0)
    graph = Embedder.load(best.with_suffix(".onnx"), "cpu")
    assert graph.flip
    assert (graph.decision, graph.fingerprint) == (model.decision, model.fingerprint)
    np.testing.assert_allclose(graph.embed(files), given, atol=1e-6)
    answers = [one.verify(files[0], files[8]).score for one in (model, graph)]
    assert answers[0] == pytest.approx(answers[1], abs=1e-4)
    # What it gives of a mirrored picture is the same.
    (mirrored,) = session.run(["embeddings"], {"images": pixels.numpy()[:, :, ::-1].copy()})
    np.testing.assert_allclose(mirrored, given, atol=1e-5)


def test_a_graph_that_averages_runs_once(
    averaging: Callable[[FittedName | None], Path], face_folder: Path
) -> None:
    graph = Embedder.load(averaging(None).with_suffix(".onnx"), "cpu")
    passes = []
    graph.network.register_forward_hook(lambda *_: passes.append(1))
    graph.embed(sorted(face_folder.glob("*/*.png"))[:3])
    assert len(passes) == 1


def test_a_graph_that_averages_is_not_asked_for_bare_embeddings(
    averaging: Callable[[FittedName | None], Path], tmp_path: Path, face_folder: Path
) -> None:
    best = averaging(None)
    out = best.with_suffix(".onnx")
    with pytest.raises(UserError, match=r"`flip` false: the graph .*best\.onnx averages each"):
        Embedder.load(out, "cpu", flip=False)
    with pytest.raises(UserError, match="averages each embedding"):
        Embedder.load(out, "cpu").embed(face_folder, flip=False)
    with Gallery(tmp_path / "bare.db", Embedder.load(best, "cpu", flip=False)) as gallery:
        gallery.enroll_folder(face_folder)
        assert gallery.head.flip  # as the threshold says


@pytest.mark.parametrize("chosen", [True, False])
def test_a_threshold_for_other_embeddings_stays_behind(tmp_path: Path, chosen: bool) -> None:
    best = tmp_path / "run" / "best.pt"
    write_random_model(best, decision=decided(chosen))
    lines: list[str] = []
    settings = ExportSettings(checkpoint=str(best), flip=not chosen, workers=0)
    graph = Embedder.load(export_model(settings, say=lines.append).path, "cpu")
    assert graph.decision is None
    assert isinstance(graph.network, OnnxNetwork)
    assert graph.network.mirrors is not chosen
    told = f"was chosen with `flip` {str(chosen).lower()}, so it is left out"
    assert any(told in line for line in lines)


@pytest.mark.parametrize("given", ["yes", 1, None])
def test_a_graph_that_says_nonsense_of_mirrors_is_refused(
    averaging: Callable[[FittedName | None], Path], tmp_path: Path, given: object
) -> None:
    path = tmp_path / "best.onnx"
    model = onnx.load(averaging(None).with_suffix(".onnx"))
    for entry in model.metadata_props:
        if entry.key == "siamese":
            entry.value = json.dumps({**json.loads(entry.value), "mirrored": given})
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="is damaged, its mirrored cannot be used"):
        Embedder.load(path, "cpu")
