"""``siamese-use``: are these the same person, and who is this?"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from siamese.cli.commands import Command, preload, run_chosen, run_command
from siamese.cli.parsing import require_places
from siamese.cli.printing import limits_text
from siamese.config.using import (
    TOKEN_VARIABLE,
    EnrollSettings,
    ExportPersonSettings,
    ExportSettings,
    ForgetSettings,
    GallerySettings,
    ListSettings,
    MigrateSettings,
    SearchSettings,
    ServeSettings,
    UseSettings,
    VerifySettings,
    check_export,
    check_serve,
    check_use,
)
from siamese.errors import UserError
from siamese.files.shown import shown
from siamese.files.writing import write_csv, write_json

if TYPE_CHECKING:  # torch is loaded where the work begins: --help and a typo answer at once
    from siamese.models.inference import Embedder, Verification
    from siamese.recognition.comparing import PairScores
    from siamese.recognition.gallery import Enrolment, Gallery, Identity
    from siamese.report.model_export import Exported

NOT_THE_SAME = 1  # exit status of verify
_SHOWN = 20
_CHOOSE = "siamese-eval threshold --checkpoint"


def _load(settings: UseSettings, own: str | None = None) -> Embedder:
    """The model that the settings name; else a gallery's own, else the newest."""
    preload("siamese.models.inference")
    from siamese.models.checkpoint import newest_best
    from siamese.models.inference import Embedder

    path: str | Path | None = settings.checkpoint
    if path is None:
        path = own if own and os.path.isfile(own) else newest_best(Path(settings.checkpoints))
    return Embedder.load(
        path,
        settings.device,
        precision=settings.precision,
        batch=settings.batch,
        checkpoints=settings.checkpoints,
    )


def _open(settings: GallerySettings) -> Gallery:
    """The gallery, with its model, ready to be searched."""
    from siamese.recognition.gallery import Gallery

    gallery = Gallery(settings.gallery, create=False)
    gallery.use(_load(settings, gallery.head.checkpoint))
    return gallery


def _require_there(*places: str | None) -> None:
    for place in places:
        if place is not None and not os.path.exists(place):
            raise UserError(f"{place}: no such file or folder")


def _verify(settings: VerifySettings) -> None:
    check_use(settings)
    _require_there(settings.a, settings.b, settings.pairs, settings.data)
    model = _load(settings)
    a, b = settings.a, settings.b
    if settings.pairs is None and not os.path.isdir(str(a)) and not os.path.isdir(str(b)):
        answer = model.verify(str(a), str(b), settings.prior)
        if settings.threshold is not None:
            answer = model.judge_score(answer.score, settings.prior, settings.threshold)
        print(json.dumps(asdict(answer), ensure_ascii=False) if settings.json else _answer(answer))
        sys.exit(_status(answer.same, model))
    from siamese.recognition.comparing import compare_pairs, listed_pairs, pairs_between

    if settings.pairs is not None:
        pairs = listed_pairs(settings.pairs, settings.data or ".")
    else:
        pairs = pairs_between(str(a), str(b))
    scored = compare_pairs(model, pairs, prior=settings.prior, threshold=settings.threshold)
    rows = _rows(scored)
    if settings.out is not None:
        write_csv(Path(settings.out), list(rows[0]), [list(row.values()) for row in rows])
    if settings.json:
        print(json.dumps(rows, ensure_ascii=False))
    else:
        _print_pairs(scored, rows)
    sys.exit(_status(None if scored.same is None else bool(scored.same.all()), model))


def _status(same: bool | None, model: Embedder) -> int:
    """0: the same, 1: not; without a threshold there is no answer.

    Raises:
        UserError: no threshold was chosen.
    """
    if same is None:
        how = f"choose one with {_CHOOSE} {model.origin}"
        if not model.origin.endswith(".pt"):
            how = "choose one for the checkpoint (siamese-eval threshold) and export it again"
        raise UserError(
            f"no threshold was chosen for {model.origin}, so there is no answer but the score: "
            f"{how}, or give `threshold`"
        )
    return 0 if same else NOT_THE_SAME


def _answer(answer: Verification) -> str:
    lines = [f"score {answer.score:.4f}"]
    if answer.threshold is not None:
        verdict = "the same person" if answer.same else "not the same person"
        where = "given"
        if answer.target_fmr is not None:
            where = f"chosen for FMR {answer.target_fmr:g} on {answer.threshold_from}"
            if answer.fmr is not None:
                interval = limits_text(answer.fmr_interval, ".2e")
                where += f": FMR {answer.fmr:.2e}{interval} there"
            if answer.chosen_at is not None:
                where += f", {answer.chosen_at}"
        lines.append(f"{verdict} (threshold {answer.threshold:.4f}, {where})")
    if answer.probability is not None:
        lines.append(
            f"probability {answer.probability:.4f} that they show one person, at prior "
            f"{answer.prior:g}"
        )
    return "\n".join(map(shown, lines))


def _rows(scored: PairScores) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for number, (a, b) in enumerate(scored.pairs):
        row: dict[str, Any] = {"path_a": a, "path_b": b, "score": float(scored.scores[number])}
        if scored.same is not None:
            row["same"] = int(scored.same[number])
        if scored.probabilities is not None:
            row["probability"] = float(scored.probabilities[number])
        rows.append(row)
    return rows


def _print_pairs(scored: PairScores, rows: Sequence[dict[str, Any]]) -> None:
    for row in rows[:_SHOWN]:
        same = {1: "same", 0: "not the same", None: ""}[row.get("same")]
        print(f"{row['score']:7.4f} {same:12} {shown(row['path_a'])}  {shown(row['path_b'])}")
    if len(rows) > _SHOWN:
        print(f"... {len(rows) - _SHOWN} more pairs (all of them with --out FILE.csv)")
    line = f"{len(rows)} pairs, scores from {scored.scores.min():.4f} to {scored.scores.max():.4f}"
    if scored.same is not None:
        line += f"; {int(scored.same.sum())} the same person at threshold {scored.threshold:.4f}"
    print(line)


def _enroll(settings: EnrollSettings) -> None:
    check_use(settings)
    pictures = settings.pictures
    _require_there(*pictures)
    folder = settings.name is None
    if folder and (len(pictures) != 1 or not os.path.isdir(pictures[0])):
        raise UserError(
            "give one folder with one folder per person, or `name` NAME and that person's pictures"
        )
    if not pictures:
        raise UserError("give the pictures of `name`: siamese-use enroll --name NAME A.jpg B.jpg")
    gallery = _gallery_to_fill(settings)
    if folder:
        done = gallery.enroll_folder(pictures[0])
    else:
        from siamese.recognition.comparing import pictures_of

        paths = [path for place in pictures for path in pictures_of(place)]
        done = gallery.enroll(str(settings.name), paths)
    _print_enrolment(done, settings.gallery)


def _gallery_to_fill(settings: GallerySettings) -> Gallery:
    """The gallery; where there is none it is made."""
    from siamese.recognition.gallery import Gallery
    from siamese.recognition.stores import NoGallery

    try:
        return _open(settings)
    except NoGallery:
        return Gallery(settings.gallery, _load(settings))


def _print_notes(notes: Sequence[str]) -> None:
    for note in notes[:_SHOWN]:
        print(f"note: {shown(note)}")
    if len(notes) > _SHOWN:
        print(f"note: ... {len(notes) - _SHOWN} more")


def _print_enrolment(done: Enrolment, gallery: str) -> None:
    _print_notes(done.notes)
    present = f", {done.present} were there already" if done.present else ""
    print(f"{done.people} people: {done.added} pictures enrolled{present} in {shown(gallery)}")


def _identify(settings: SearchSettings) -> None:
    check_use(settings)
    if not settings.pictures:
        raise UserError("give the pictures to search for: siamese-use identify PICTURE ...")
    _require_there(*settings.pictures)
    gallery = _open(settings)
    from siamese.recognition.comparing import pictures_of

    approximate = settings.search == "hnsw"
    if approximate:
        recall = gallery.make_index()
        if recall is not None:
            print(
                "note: approximate search; searched for up to 200 enrolled pictures, the index "
                f"finds the person whom an exact search puts second in {recall:.1%} of them",
                file=sys.stderr,
            )
    paths = [path for place in settings.pictures for path in pictures_of(place)]
    answers = gallery.identify_paths(
        paths,
        top=settings.top,
        threshold=settings.threshold,
        prior=settings.prior,
        approximate=approximate,
    )
    if settings.out is not None:
        write_csv(Path(settings.out), _COLUMNS, _table(paths, answers))
    if settings.json:
        print(
            json.dumps(
                [{"path": p, **asdict(one)} for p, one in zip(paths, answers, strict=True)],
                ensure_ascii=False,
            )
        )
    else:
        _print_identities(paths, answers)


_COLUMNS = ["path", "known", "rank", "name", "score", "probability"]


def _table(paths: Sequence[str], answers: Sequence[Identity]) -> list[list[object]]:
    return [
        [
            path, answer.name or "", rank, one.name, f"{one.score:.6f}",
            "" if one.probability is None else f"{one.probability:.6f}",
        ]
        for path, answer in zip(paths, answers, strict=True)
        for rank, one in enumerate(answer.candidates, 1)
    ]  # fmt: skip


def _print_identities(paths: Sequence[str], answers: Sequence[Identity]) -> None:
    for path, answer in list(zip(paths, answers, strict=True))[:_SHOWN]:
        who = "nobody known" if answer.name is None else answer.name
        if answer.threshold is None:
            who = "no threshold was chosen"
        print(f"{shown(path)}: {shown(who)}")
        for one in answer.candidates:
            sure = "" if one.probability is None else f"  probability {one.probability:.4f}"
            print(f"  {one.score:7.4f}  {shown(one.name)}{sure}")
    if len(paths) > _SHOWN:
        print(f"... {len(paths) - _SHOWN} more pictures (all of them with --out FILE.csv)")
    known = sum(answer.name is not None for answer in answers)
    first = answers[0]
    if first.threshold is None:
        print(f"note: no threshold was chosen for this model: {_CHOOSE} BEST.pt chooses one")
    else:
        print(
            f"{known} of {len(paths)} known at threshold {first.threshold:.4f} ({first.chosen_for})"
        )


def _without_model(settings: GallerySettings) -> Gallery:
    check_use(settings)
    from siamese.recognition.gallery import Gallery

    return Gallery(settings.gallery, create=False)


def _people(settings: ListSettings) -> None:
    everybody = _without_model(settings).people()
    if settings.json:
        print(json.dumps([asdict(one) for one in everybody], ensure_ascii=False))
        return
    print("pictures  enrolled from               to                          name")
    for one in everybody:
        print(f"{one.pictures:8}  {shown(one.first):26}  {shown(one.last):26}  {shown(one.name)}")
    print(f"{len(everybody)} people, {sum(one.pictures for one in everybody)} pictures")


def _forget(settings: ForgetSettings) -> None:
    gallery = _without_model(settings)
    if not settings.names:
        raise UserError("give the names of those to forget: siamese-use forget NAME ...")
    removed = gallery.forget(settings.names)
    names = ", ".join(map(shown, settings.names))
    print(f"forgot {names}: {removed} pictures removed from {shown(settings.gallery)}")


def _export_person(settings: ExportPersonSettings) -> None:
    gallery = _without_model(settings)
    content = gallery.person(str(settings.name))
    if settings.out is None:
        print(json.dumps(content, ensure_ascii=False, indent=1))
    else:
        print(f"wrote {shown(str(write_json(Path(settings.out), content)))}")


def _migrate(settings: MigrateSettings) -> None:
    gallery = _without_model(settings)
    if settings.to is not None:
        if settings.checkpoint is not None:
            raise UserError("`to`: copies the gallery as it is; give it without `checkpoint`")
        print(f"copied {gallery.copy_to(settings.to)} pictures to {shown(settings.to)}")
        return
    if settings.checkpoint is None:
        raise UserError("`checkpoint` is missing: the model that everybody is embedded with anew")
    pictures, notes = gallery.migrate(_load(settings))
    _print_notes(notes)
    print(f"{pictures} pictures embedded anew in {shown(settings.gallery)}")


def _export(settings: ExportSettings) -> None:
    check_export(settings)
    require_places(settings, {"data": "no such folder"})
    preload("siamese.report.model_export")
    from siamese.report.model_export import export_model

    _print_exported(export_model(settings, say=lambda line: print(line, flush=True)))


def _print_exported(result: Exported) -> None:
    if result.difference is not None:
        print(
            f"checked on {result.checked} {result.on}: largest difference of a score "
            f"{result.difference:.1e}"
        )
    if (cost := result.cost) is not None:
        auc = cost.auc
        limits = "" if auc.interval is None else " [{:+.4f}, {:+.4f}]".format(*auc.interval)
        print(
            f"AUC {auc.a:.4f} before, {auc.b:.4f} after, difference {auc.difference:+.4f}{limits} "
            f"({cost.people})"
        )
        if not limits:
            print("note: no interval, so the quantised model is kept whatever it costs")
        if cost.before is not None and cost.after is not None:
            print(
                "at the checkpoint's threshold: FMR {:.2e}, FNMR {:.4f} before; "
                "FMR {:.2e}, FNMR {:.4f} after".format(*cost.before, *cost.after)
            )
    print(f"fingerprint {result.fingerprint}")
    print(f"wrote {shown(str(result.path))} ({result.size / 1e6:.1f} MB)")


def _serve(settings: ServeSettings) -> None:
    if settings.token is None:
        settings.token = os.environ.get(TOKEN_VARIABLE)
    check_serve(settings)
    for library in ("fastapi", "python_multipart", "uvicorn"):
        if importlib.util.find_spec(library) is None:
            raise UserError(f"serve: needs {library}: pip install 'siamese[serve]'")
    preload("siamese.serving.server")
    from siamese.recognition.gallery import Gallery
    from siamese.recognition.stores import NoGallery
    from siamese.serving.server import serve

    try:
        with Gallery(settings.gallery, create=False) as gallery:
            model = _load(settings, gallery.head.checkpoint)
            gallery.use(model)
    except NoGallery:
        model = _load(settings)
    serve(model, settings)


COMMANDS = {
    "verify": Command(
        VerifySettings, "are these two pictures of one person? exit status 0 yes, 1 no", _verify,
        ("a", "b"),
    ),
    "enroll": Command(
        EnrollSettings, "make people known: a folder of people, or --name NAME PICTURES", _enroll,
        words="pictures", usage="[FOLDER | PICTURES ...]",
    ),
    "identify": Command(
        SearchSettings, "who is on these pictures?", _identify, words="pictures",
        usage="PICTURES ...",
    ),
    "people": Command(ListSettings, "who is known", _people),
    "forget": Command(
        ForgetSettings, "remove people and all that is stored about them", _forget,
        words="names", usage="NAME ...",
    ),
    "export-person": Command(
        ExportPersonSettings, "all that is stored about a person (JSON)", _export_person,
        ("name",), needed={"name": "the person"},
    ),
    "migrate": Command(
        MigrateSettings, "embed everybody anew with another model, or copy to a database", _migrate
    ),
    "serve": Command(
        ServeSettings, "answer all of this over HTTP, with a page for a browser", _serve
    ),
    "export": Command(
        ExportSettings, "the model as one file for other programs: ONNX, safetensors", _export
    ),
}  # fmt: skip


def _command(argv: Sequence[str]) -> None:
    run_chosen(
        "siamese-use",
        COMMANDS,
        argv,
        "Without --checkpoint: a gallery's own model, else the newest checkpoints/*/best.pt.",
        "Choose its threshold first: siamese-eval threshold",
    )


def main() -> NoReturn:
    """Entry point of ``siamese-use``."""
    run_command("siamese-use", _command)
