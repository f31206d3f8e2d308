"""``siamese-eval``: how good is an embedder, on people it never saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NoReturn

from siamese.cli.parsing import choose_command, parse_settings, run_command
from siamese.config import EmbedSettings, JudgeSettings
from siamese.errors import UserError

COMMANDS = {
    "roc": "ROC curve, AUC, EER and TAR@FAR over all pairs",
    "pr": "precision-recall curve and AP over all pairs",
    "embed": "write embeddings of a folder to an .npz file",
}
_HELP = "\n".join(
    [
        "usage: siamese-eval COMMAND [settings]   (siamese-eval COMMAND --help lists them)",
        "",
        *(f"  {name:6} {text}" for name, text in COMMANDS.items()),
        "",
        "Without --checkpoint the newest checkpoints/*/best.pt is judged; without --data its own",
        "validation people. A first look after training: siamese-eval roc",
    ]
)


def _command(argv: Sequence[str]) -> None:
    name = choose_command(argv, list(COMMANDS), _HELP)
    if name == "embed":
        _embed(_parse(EmbedSettings, name, argv[1:]))
    elif name is not None:
        _judge(_parse(JudgeSettings, name, argv[1:]), "roc" if name == "roc" else "pr")


def _parse(kind: type[Any], name: str, argv: Sequence[str]) -> Any:
    settings = parse_settings(
        kind, argv, prog=f"siamese-eval {name}", description=f"{COMMANDS[name]}.", short={}
    )
    if settings.batch < 1:
        raise UserError(f"--batch {settings.batch}: must be at least 1")
    if settings.workers is not None and settings.workers < 0:
        raise UserError(f"--workers {settings.workers}: must be 0 or more")
    return settings


def _embed(settings: EmbedSettings) -> None:
    from siamese.report.judge import write_embeddings

    path, people = write_embeddings(settings)
    for note in people.notes:
        print(f"note: {note}")
    count, dimensions = people.embeddings.shape
    print(f"{people.origin}\nwrote {count} embeddings of {dimensions} dimensions to {path}")


def _judge(settings: JudgeSettings, kind: Literal["roc", "pr"]) -> None:
    from siamese.report.judge import judge

    result = judge(settings, kind)
    for note in result.notes:
        print(f"note: {note}")
    f = result.figures
    print(
        f"{result.origin}\n{f['identities']} identities, {f['images']} images, "
        f"{f['genuine_pairs']} genuine pairs, {f['impostor_pairs']} impostor pairs"
    )
    print(f"AUC {f['auc']:.4f}" if kind == "roc" else f"AP  {f['ap']:.4f}")
    print(f"EER {f['eer']:.4f} (threshold {f['eer_threshold']:.4f})")
    for rate in ("1e-2", "1e-3"):
        print(f"TAR@FAR={rate} {f[f'tar_at_far_{rate}']:.4f}{_support(f, float(rate))}")
    print("wrote " + ", ".join(str(file) for file in result.files))


def _support(figures: dict[str, float], rate: float) -> str:
    lowest = figures["lowest_supported_fmr"]
    if rate >= lowest:
        return ""
    return f" (unsupported: {figures['identities']} people support FAR >= {lowest:.1e})"


def main() -> NoReturn:
    """Entry point of ``siamese-eval``."""
    run_command(_command, "siamese-eval")
