"""``siamese-use``: a trained model in use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from siamese.cli.commands import Command, preload, run_chosen, run_command
from siamese.cli.parsing import require_places
from siamese.config.using import ExportSettings, check_export
from siamese.files.shown import shown

if TYPE_CHECKING:
    from siamese.report.model_export import Exported


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


COMMANDS = {
    "export": Command(
        ExportSettings, "the model as one file for other programs: ONNX, safetensors", _export
    ),
}


def _command(argv: Sequence[str]) -> None:
    run_chosen(
        "siamese-use",
        COMMANDS,
        argv,
        "Without --checkpoint the newest checkpoints/*/best.pt is taken.",
    )


def main() -> NoReturn:
    """Entry point of ``siamese-use``."""
    run_command("siamese-use", _command)
