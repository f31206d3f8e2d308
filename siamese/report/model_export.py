"""Export a trained model, and keep the file only where it does what the checkpoint does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from siamese.config import EmbedSettings
from siamese.config.using import EXPORT_SUFFIXES, ExportSettings, check_export
from siamese.data.folder import FaceFolder, scan_folder
from siamese.data.loaders import Batch, default_workers, evaluation_loader
from siamese.data.transforms import Preprocess
from siamese.errors import UserError
from siamese.files.shown import shown
from siamese.files.writing import replacing
from siamese.models.checkpoint import JUDGED, find_best, newest_best, read_checkpoint
from siamese.models.embedder import MODULE, EmbedderSpec
from siamese.models.embedding import embed_batch
from siamese.models.exported import KEY, as_text, describe, graph_digest, read_exported
from siamese.models.exporting import (
    Mirrored,
    load_torch,
    onnx_graph,
    quantized,
    save_safetensors,
    save_torch,
    with_properties,
)
from siamese.models.fingerprint import fingerprint
from siamese.models.loading import (
    decision_of,
    embedder_of,
    holding,
    mirrors_of,
    network_of,
    scoring_of,
    spec_of,
    stored_map,
)
from siamese.models.onnx_network import require_onnx
from siamese.models.scoring import PLDA, Baked, Mapped, Scoring, ScoringMap, named_tensors
from siamese.report.embedding_sources import Model, embed_folder, own_people
from siamese.report.model_comparison import Difference, differences_of, same_pictures
from siamese.report.verification_report import verify
from siamese.verification.metrics import error_rates

MOST_DIFFERENT = 1e-4  # of a score, where the arithmetic is float32 before and after
CHECKED = 64  # pictures
_BATCH = 32
_AVERAGES = (
    "note: the model averages each embedding with that of the mirrored picture, as siamese does, "
    "for twice the time; `flip` false leaves that out (choose a threshold for it first: "
    "siamese-eval threshold --flip false)"
)
Say = Callable[[str], None]
Rates = tuple[float, float]


@dataclass(frozen=True)
class QuantizationCost:
    """What 8-bit integers cost.

    Attributes:
        auc: area under the ROC before (A) and after (B), and the interval of the difference.
        people: who was judged, in words.
        before: FMR and FNMR at the checkpoint's threshold before; None where none was chosen.
        after: the same after.
    """

    auc: Difference
    people: str
    before: Rates | None
    after: Rates | None


@dataclass(frozen=True)
class Exported:
    """An exported model.

    Attributes:
        path: the file.
        size: of it, in bytes.
        fingerprint: of the model; that of the checkpoint but for a quantised one.
        difference: largest difference of a score from the checkpoint's; None where there is no
            arithmetic in the file (safetensors), whose weights are the same bit for bit.
        checked: on how many pictures.
        on: which pictures, in words.
        cost: of the quantisation; None without.
    """

    path: Path
    size: int
    fingerprint: str
    difference: float | None
    checked: int
    on: str
    cost: QuantizationCost | None = None


def export(
    checkpoint: str | Path,
    out: str | Path | None = None,
    *,
    backbone: nn.Module | None = None,
    say: Say = lambda line: None,
    **settings: Any,
) -> Exported:
    """Export a checkpoint's model: the function behind ``siamese-use export``.

    Args:
        checkpoint: a file, the folder that holds ``best.pt``, or a run's name.
        out: the file to write; None: beside the checkpoint.
        backbone: the network, where it was a module of a program's own; see
            :meth:`siamese.models.inference.Embedder.load`.
        say: is given a line of progress.
        settings: fields of :class:`siamese.config.using.ExportSettings`, such as ``to``.

    Raises:
        UserError: as of :func:`export_model`.
    """
    place = None if out is None else str(out)
    try:
        given = ExportSettings(checkpoint=str(checkpoint), out=place, **settings)
    except TypeError as error:
        raise UserError(f"export: {error}") from None
    return export_model(given, backbone=backbone, say=say)


def export_model(
    settings: ExportSettings, *, backbone: nn.Module | None = None, say: Say = lambda line: None
) -> Exported:
    """Write a model into one file that describes itself; whatever fails leaves nothing behind.

    Args:
        settings: which model, and how.
        backbone: see :func:`export`.
        say: is given a line of progress.

    Raises:
        UserError: unusable checkpoint; a missing extra; a network that cannot be exported; scores
            that differ; a quantised model that is worse.
    """
    check_export(settings)
    if settings.to == "onnx":
        require_onnx("`to` onnx", "onnxscript")
    job = _Job(settings, backbone, say)
    if settings.to == "safetensors":
        return _safetensors(job)
    job.say(f"exporting {shown(str(job.path))} ({settings.to}) takes some seconds")
    return _torch(job) if settings.to == "torch" else _onnx(job)


class _Job:
    """The model that is exported, and the pictures that it is checked on."""

    def __init__(self, settings: ExportSettings, backbone: nn.Module | None, say: Say):
        self.settings, self.say = settings, say
        self.path = path = _source(settings)
        self.content = read_checkpoint(path, keys=JUDGED, limits=settings.limits)
        if "onnx" in self.content:
            raise UserError(f"{path}: is exported already; give the checkpoint that it was made of")
        decision_of(self.content, path)  # where it is damaged, before the work
        self.spec: EmbedderSpec = spec_of(self.content)
        self.flip = False
        if settings.to == "safetensors":  # which holds what the checkpoint does
            self.scoring, found = Scoring(), stored_map(self.content, path)
        else:
            self.scoring = self._scoring()
            found = self.scoring.map
            self.flip = mirrors_of(self.content, path, self.scoring, settings.flip)
            self._leave_out_threshold()
        self.map = found if isinstance(found, ScoringMap) else None
        if self.flip:
            self.say(_AVERAGES)
        self.fingerprint = self.scoring.fingerprint(fingerprint(self.spec, self.content["model"]))
        self.out = _target(settings, path)
        self.network: nn.Module | None = None
        if settings.to != "safetensors":  # which takes weights as they are
            self._require_module(backbone)
            self.network = embedder_of(self.content, path, backbone=backbone)

    def _require_module(self, backbone: nn.Module | None) -> None:
        name = self.spec.backbone
        if name.startswith(MODULE) and backbone is None:
            raise UserError(
                f"{self.path}: its network is a module of the class "
                f"{shown(name.removeprefix(MODULE))}, which the file does not hold; export it in "
                "Python, siamese.export(..., backbone=MODULE), or its weights with `to` safetensors"
            )

    def _scoring(self) -> Scoring:
        """What the exported graph is to compute.

        Raises:
            UserError: the checkpoint does not have it, or a graph cannot do it.
        """
        settings = self.settings
        scoring = scoring_of(self.content, self.path, settings.scoring)
        if scoring.map is not None and settings.quantize is not None:
            raise UserError(
                f"`quantize` {settings.quantize}: is there with `scoring` cosine only; export in "
                "float32, or with `scoring` cosine"
            )
        return scoring

    def _leave_out_threshold(self) -> None:
        """A threshold of other scores than the graph's stays behind."""
        decision = decision_of(self.content, self.path)
        if decision is None:
            return
        if holding(decision, self.scoring) is None:
            chosen = f"`scoring` {decision.scoring}"
        elif decision.flip != self.flip:
            chosen = f"`flip` {str(decision.flip).lower()}"
        else:
            return
        self.content.pop("decision")
        self.say(
            f"note: the threshold of {shown(str(self.path))} was chosen with {chosen}, so it is "
            "left out of this export"
        )

    @property
    def embedder(self) -> nn.Module:
        assert self.network is not None, "there is one unless weights alone are exported"
        return self.network

    @property
    def graph(self) -> nn.Module:
        """What is exported: the embedder, its averages, and its scoring where that is a map."""
        network = Mirrored(self.embedder) if self.flip else self.embedder
        return (network if self.map is None else Mapped(network, self.map)).eval()

    @property
    def baked(self) -> Baked | None:
        """What is said of the map that travels along."""
        one = self.map
        return None if one is None else Baked(one.digest, one.dimensions, one.fitted, one.kind)

    def text(self, mark: str | None = None, graph: str | None = None) -> str:
        """The description that travels along."""
        people = self.settings.people
        mark = self.fingerprint if mark is None else mark
        described = describe(
            self.content, mark, people=people, graph=graph, scoring=self.baked, mirrored=self.flip
        )
        return as_text(described)

    def model(self, network: nn.Module) -> Model:
        """The checkpoint with one or the other network, on the CPU in float32."""
        return Model(
            self.path, self.content, self.spec, network, torch.device("cpu"), torch.float32
        )

    def people(self, part: str) -> FaceFolder:
        """The checkpoint's own people, or of a foreign folder every second person for each part.

        Raises:
            UserError: neither are there.
        """
        data, split = self.settings.data, self.content["split"]
        if data is not None:
            found = scan_folder(Path(data))
            needed = ("validation", "train") if self.settings.quantize else ("validation",)
            if not all(
                name in split and set(split[name]["identities"]) <= set(found.names)
                for name in needed
            ):
                return found.only(list(found.names[part == "train" :: 2]))
        return own_people(self.model(nn.Identity()), part, data)

    def batches(self, folder: FaceFolder, most: int) -> Iterator[Batch]:
        """Some pictures of a folder, evenly spread over its people."""
        number = len(folder.paths)
        positions = sorted({round(at) for at in np.linspace(0, number - 1, min(most, number))})
        workers, spec = self.settings.workers, self.spec
        prepare = Preprocess(spec.size, "squash" if spec.fit == "squash" else "crop", spec.crop)
        return iter(
            evaluation_loader(
                folder,
                prepare,
                prepare.decode_size,
                batch_size=_BATCH,
                workers=default_workers("cpu") if workers is None else workers,
                positions=positions,
            )
        )

    def pictures(self) -> tuple[torch.Tensor, str]:
        """What the exported model is checked on, uint8 (N, 3, S, S), and what it is in words."""
        try:
            folder = self.people("validation")
        except UserError:
            if self.settings.data is not None or self.settings.quantize is not None:
                raise
            made = torch.Generator().manual_seed(0)
            size = (CHECKED, 3, self.spec.size, self.spec.size)
            noise = torch.randint(0, 256, size, dtype=torch.uint8, generator=made)
            return noise, "generated noise (no pictures are here; give some with `data`)"
        images = [batch.images for batch in self.batches(folder, CHECKED) if len(batch.images)]
        if not images:
            raise UserError(f"{folder.root}: none of the pictures to check on can be decoded")
        return torch.cat(images), f"pictures of {shown(str(folder.root))}"


def _source(settings: ExportSettings) -> Path:
    checkpoints = Path(settings.checkpoints)
    if settings.checkpoint is None:
        return newest_best(checkpoints, settings.limits)
    return find_best(settings.checkpoint, checkpoints)


def _target(settings: ExportSettings, source: Path) -> Path:
    """The file to write: never the one that is read."""
    ending = f"-{settings.quantize}" if settings.quantize else ""
    beside = source.with_name(f"{source.stem}{ending}{EXPORT_SUFFIXES[settings.to]}")
    out = beside if settings.out is None else Path(settings.out)
    if out.is_dir():
        raise UserError(f"`out` {out}: is a folder; give the file to write")
    if out.exists() and out.samefile(source):
        raise UserError(f"`out` {out}: is the model that is read; give another file")
    return out


def _safetensors(job: _Job) -> Exported:
    with replacing(job.out) as temporary:
        tensors = job.content["model"]
        if job.map is not None:
            tensors = {**tensors, **named_tensors(job.map.as_dict())}
        save_safetensors(temporary, tensors, job.text())
        # Reading compares the weights with the fingerprint.
        read_exported(temporary, job.settings.limits, ".safetensors")
        size = temporary.stat().st_size
    return Exported(job.out, size, job.fingerprint, None, 0, "")


def _torch(job: _Job) -> Exported:
    pictures, on = job.pictures()
    with replacing(job.out) as temporary:
        save_torch(temporary, job.graph, job.spec, job.text())
        archive = load_torch(temporary)
        difference = _checked(job, archive, pictures, pixels_last=True)
        size = temporary.stat().st_size
    return Exported(job.out, size, job.fingerprint, difference, len(pictures), on)


def _onnx(job: _Job) -> Exported:
    pictures, on = job.pictures()
    train = job.people("train") if job.settings.quantize else None
    graph, mark, cost = onnx_graph(job.graph, job.spec), job.fingerprint, None
    if train is not None:
        number = min(job.settings.pictures, len(train.paths))
        job.say(f"quantising by {number} pictures of {shown(str(train.root))}")
        graph = quantized(graph, _channels_last(job.batches(train, number)))
    digest = graph_digest(graph, job.out, job.settings.limits)
    if train is not None:  # another model: its scores are not those of the checkpoint
        mark = hashlib.sha256(f"{mark} {job.settings.quantize} {digest}".encode()).hexdigest()
    text = job.text(mark, digest)
    with replacing(job.out) as temporary:
        temporary.write_bytes(with_properties(graph, _properties(json.loads(text), text)))
        content = read_exported(temporary, job.settings.limits, ".onnx")
        network, _ = network_of(content, job.out, "cpu")
        difference = _checked(job, network, pictures, exact=train is None)
        if train is not None:
            cost = _cost(job, network)
        size = temporary.stat().st_size
    return Exported(job.out, size, mark, difference, len(pictures), on, cost)


def _channels_last(batches: Iterator[Batch]) -> Iterator[npt.NDArray[np.uint8]]:
    for batch in batches:
        if len(batch.images):
            yield np.ascontiguousarray(batch.images.permute(0, 2, 3, 1).numpy())


def _properties(description: Mapping[str, Any], text: str) -> dict[str, str]:
    """What other programs read from an ONNX file; this one reads the whole description."""
    spec, decision = description["embedder"], description.get("decision")
    found = {
        "size": str(spec["size"]),
        "fit": spec["fit"],
        "color_order": spec.get("color_order", "RGB"),
        "fingerprint": description["fingerprint"],
    }
    if spec.get("crop") is not None:
        found["crop"] = repr(spec["crop"])
    if description.get("mirrored", False):
        found["mirrored"] = "averaged with the mirrored picture's embedding by the graph itself"
    if "scoring" in description:
        found["scoring"] = description["scoring"].get("kind", PLDA)
    if decision is not None:
        found["threshold"] = repr(decision["threshold"])
        found["target_fmr"] = repr(decision["target_fmr"])
        found["calibration"] = json.dumps(decision["calibration"])
    return {**found, KEY: text}


@torch.inference_mode()
def _checked(
    job: _Job,
    exported: nn.Module,
    pictures: torch.Tensor,
    *,
    exact: bool = True,
    pixels_last: bool = False,
) -> float:
    """The largest difference of a score between the checkpoint and what was exported.

    Raises:
        UserError: it is larger than rounding explains.
    """
    scores = []
    for network, last in ((job.embedder, False), (exported, pixels_last)):
        found = []
        for batch in torch.split(pictures, _BATCH):
            if network is job.embedder:  # by another arithmetic than the graph's
                bare = embed_batch(network, batch, torch.device("cpu"), flip=job.flip)
                given = torch.from_numpy(job.scoring.apply(bare.numpy()))
            else:
                given = network(batch.permute(0, 2, 3, 1) if last else batch)
            found.append(given.double())
        unit = nn.functional.normalize(torch.cat(found))
        scores.append(unit @ unit.T)
    difference = float((scores[0] - scores[1]).abs().max())
    if exact and not difference <= MOST_DIFFERENT:  # NaN is not
        raise UserError(
            f"{job.out}: not written: scores of the exported model differ by {difference:.1e} from "
            f"the checkpoint's ({MOST_DIFFERENT:g} at most) on {len(pictures)} pictures; export "
            "with `to` safetensors"
        )
    return difference


def _cost(job: _Job, network: nn.Module) -> QuantizationCost:
    """Judge the quantised model beside the checkpoint on people who did not train it.

    Raises:
        UserError: it is worse.
    """
    settings, decision = job.settings, decision_of(job.content, job.path)
    folder = job.people("validation")
    job.say(f"judging both on {len(folder.names)} people, {len(folder.paths)} pictures")
    options = EmbedSettings(workers=settings.workers, flip=job.flip, batch=_BATCH)
    a, b = (
        embed_folder(job.model(one), folder, options, f"{job.path} ({name})", [])
        for one, name in ((job.embedder, "float32"), (network, "int8"))
    )
    verified = [
        verify(one, device="cpu", resamples=settings.resamples) for one in same_pictures(a, b)
    ]
    auc = next(one for one in differences_of(*verified) if one.name == "auc")
    if auc.interval is not None and auc.interval[1] < 0:
        raise UserError(
            f"{job.out}: not written: int8 is worse, AUC {auc.a:.4f} before and {auc.b:.4f} after, "
            f"difference {auc.difference:+.4f} [{auc.interval[0]:+.4f}, {auc.interval[1]:+.4f}]; "
            "export without `quantize`, or give more `pictures` to find the ranges on"
        )
    rates: list[Rates | None] = [None, None]
    if decision is not None:
        for at, one in enumerate(verified):
            fmr, fnmr = error_rates(one.counts, decision.threshold)
            rates[at] = float(fmr), float(fnmr)
    who = f"{len(folder.names)} people of {shown(str(folder.root))}"
    return QuantizationCost(auc, who, rates[0], rates[1])
