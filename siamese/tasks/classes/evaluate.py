"""Judge a classification checkpoint: figures, a table of classes, a picture, the predictions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from siamese.config import ClassificationSettings, ClassifierEvalSettings
from siamese.config.reading import build_settings, flat_settings
from siamese.data.loaders import default_workers
from siamese.drawing.figure import save_figure
from siamese.errors import UserError
from siamese.files.writing import replacing, write_csv, write_json
from siamese.models.device import choose_device, choose_precision
from siamese.tasks.classes.class_figures import confusion_figure
from siamese.tasks.classes.classifier import judge_images, load_classifier
from siamese.tasks.classes.judging import ClassTable, class_table, confusion, summarise_logits
from siamese.tasks.classes.parts import load_parts


@dataclass(frozen=True)
class Evaluated:
    """Figures, see :func:`summarise_logits`, and the folder where everything lies."""

    figures: dict[str, float]
    classes: tuple[str, ...]
    table: ClassTable
    origin: str
    out: Path


def evaluate(settings: ClassifierEvalSettings) -> Evaluated:
    """Judge a checkpoint and write ``figures.json``, ``classes.csv``, ``predictions.npz`` (logits
    and probabilities float32 (N, C), labels int64 (N,), classes), and ``confusion`` as PNG, SVG and
    PDF.

    Raises:
        UserError: no usable checkpoint, no images, no validation images in that run.
    """
    path = Path(settings.checkpoint or "")
    network, spec, content = load_classifier(path, settings.limits)
    device = choose_device(settings.device)
    precision = choose_precision(settings.precision, device)
    saved = flat_settings(ClassificationSettings, content["settings"], str(path))
    run = build_settings(ClassificationSettings, saved, str(path))
    data = run.data if settings.root is None else replace(run.data, root=settings.root)
    parts = load_parts(data, run.seed).named()
    if settings.part not in parts:
        raise UserError(f"{path}: its run kept no validation images aside; use `part` test")
    images = parts[settings.part]
    if images.classes != spec.classes:
        raise UserError(f"{data.root}: holds other classes than {path} was trained on")
    logits, labels = judge_images(
        network.to(device),
        spec,
        images,
        device,
        precision,
        batch=settings.batch,
        workers=default_workers(device.type) if data.workers is None else data.workers,
    )
    logits, labels = logits.cpu(), labels.cpu()
    figures = summarise_logits(logits, labels, settings.bins)
    confused = confusion(logits, labels)
    table = class_table(confused)
    judged = f"eval-{settings.part}-{path.stem}"
    out = Path(settings.out or Path(run.runs) / str(run.name) / judged)
    origin = f"{path.parent.name}/{path.name}: {len(labels)} {settings.part} images of {data.name}"
    write_json(out / "figures.json", {"checkpoint": str(path), "part": settings.part} | figures)
    _write_classes(out / "classes.csv", spec.classes, table)
    title = (
        f"{path.parent.name}: {spec.network}, {figures['error']:.2f} % error",
        f"{len(labels)} {settings.part} images of {data.name}",
    )
    save_figure(confusion_figure(confused, spec.classes, title), out / "confusion")
    with replacing(out / "predictions.npz") as temporary, open(temporary, "wb") as file:
        np.savez(
            file,
            logits=logits.numpy(),
            probabilities=logits.softmax(dim=1).numpy(),
            labels=labels.numpy(),
            classes=np.array(spec.classes),
        )
    return Evaluated(figures, spec.classes, table, origin, out)


def _write_classes(path: Path, classes: tuple[str, ...], table: ClassTable) -> None:
    rows = [
        [
            name,
            int(table.images[label]),
            int(table.correct[label]),
            *(
                "" if np.isnan(figure[label]) else f"{figure[label]:.6g}"
                for figure in (table.recall, table.precision, table.f1)
            ),
            "" if table.confused_with[label] < 0 else classes[table.confused_with[label]],
        ]
        for label, name in enumerate(classes)
    ]
    header = ["class", "images", "correct", "recall", "precision", "f1", "most_taken_for"]
    write_csv(path, header, rows)
