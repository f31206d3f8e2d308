"""What an audit found, as tables, a plan, a page, a contact sheet and the command's words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from siamese.curation.audits.audit_page import KINDS, audit_page, summary_of
from siamese.curation.audits.audited import Audit, Leak, MixedFolder, SamePerson, Suspect
from siamese.curation.pages.pages import write_contact_sheet, write_findings_page
from siamese.curation.plans import Move, mend_command, write_plan
from siamese.curation.shell import command_line, path_word
from siamese.files.writing import write_csv

_PLAN = Path("plans") / "suspects.csv"
_SAME = "same_person.csv"
_TOLD = 5  # findings of a kind in the text


def write_audit(out: Path, audit: Audit, *, shown: int) -> tuple[Path, ...]:
    """Write every result of an audit into a folder; what is there already is replaced.

    Args:
        out: the folder; made where it is missing.
        audit: what was found.
        shown: findings of each kind whose pictures are on the page, and rows of the sheet.

    Returns:
        suspects.csv, same_person.csv, mixed.csv, leaks.csv, plans/suspects.csv (a plan that
        quarantines the suspects), audit.html, audit.png; without findings they are there as well.
    """
    tables = (
        write_csv(
            out / "suspects.csv",
            ("rank", "path", "person", "suspicion", "owner", "own_score", "owner_score"),
            (
                (rank, one.path, one.person, _number(one.suspicion), one.owner or "",
                 _number(one.own_score), _number(one.owner_score))
                for rank, one in enumerate(audit.suspects, start=1)
            ),
            errors="surrogateescape",
        ),
        write_csv(
            out / _SAME,
            ("first", "second", "probability", "score"),
            (
                (one.first, one.second, _number(one.probability), _number(one.score))
                for one in audit.same
            ),
            errors="surrogateescape",
            exact=True,  # siamese-data split --merge reads it
        ),
        write_csv(
            out / "mixed.csv",
            ("person", "probability", "pictures", "other_pictures", "example", "other_example"),
            (
                (one.person, _number(one.probability), len(one.main), len(one.other),
                 _first(one.main), _first(one.other))
                for one in audit.mixed
            ),
            errors="surrogateescape",
        ),
        write_csv(
            out / "leaks.csv",
            ("kind", "first", "second", "score"),
            ((one.kind, one.first, one.second, _number(one.score)) for one in audit.leaks),
            errors="surrogateescape",
        ),
    )  # fmt: skip
    write_plan(out / _PLAN, [Move(suspect.path, None) for suspect in audit.suspects])
    files = (*tables, out / _PLAN)
    page = audit_page(audit, out, shown=shown, mend=_mend(audit, files), split=_split(audit, files))
    write_findings_page(out / "audit.html", page)
    write_contact_sheet(out / "audit.png", page.title, page.sections, limit=shown)
    return (*files, out / "audit.html", out / "audit.png")


def audit_text(audit: Audit, files: Sequence[Path], *, moved: bool = False) -> str:
    """What the command tells: counts, the first few of each kind, the files, what to do next.

    Args:
        audit: what was found.
        files: what :func:`write_audit` returned.
        moved: the suspects are in the quarantine already.
    """
    lines = [audit.origin, *summary_of(audit)]
    told = (
        ("wrong pictures", [_suspect_line(one) for one in audit.suspects[:_TOLD]],
         len(audit.suspects)),
        ("one person under two names", [_same_line(one) for one in audit.same[:_TOLD]],
         len(audit.same)),
        ("two people under one name", [_mixed_line(one) for one in audit.mixed[:_TOLD]],
         len(audit.mixed)),
        ("in both folders", [_leak_line(one) for one in audit.leaks[:_TOLD]], len(audit.leaks)),
    )  # fmt: skip
    for title, found, count in told:
        if found:
            lines += [f"{title}:", *(f"  {line}" for line in found)]
            if count > len(found):
                lines.append(f"  and {count - len(found)} more")
    lines += audit.notes
    pages = [file for file in files if file.suffix in (".html", ".png")]
    lines += [f"look: {command_line(file)}" for file in pages]
    mend = None if moved else _mend(audit, files)
    if audit.weak is not None:
        lines.append(f"next: no move; {audit.weak}")
    for command in filter(None, (mend, _split(audit, files))):
        lines.append(f"next: {command}")
    return "\n".join(lines)


def _mend(audit: Audit, files: Sequence[Path]) -> str | None:
    """The command that quarantines the suspects; None where the model is too weak for that."""
    plans = [file for file in files if file.parts[-2:] == _PLAN.parts]
    if audit.weak is not None or audit.root is None or not audit.suspects or not plans:
        return None
    return mend_command(audit.root, plans[0])


def _split(audit: Audit, files: Sequence[Path]) -> str | None:
    """The command that makes lists in which one person's folders are together."""
    same = [file for file in files if file.name == _SAME]
    if audit.root is None or not audit.same or not same:
        return None
    root = path_word(audit.root)
    return command_line("siamese-data", "split", root, "--merge", path_word(same[0]))


def _number(value: float) -> str:
    return f"{value:.6f}"


def _first(paths: Sequence[str]) -> str:
    return paths[0] if paths else ""


def _shown(name: str) -> str:
    """A name as a word of the shell: spaces and what cannot be seen are told."""
    return command_line(name)


def _suspect_line(one: Suspect) -> str:
    like = "nobody here" if one.owner is None else _shown(one.owner)
    return f"{one.suspicion:.3f}  {_shown(one.path)}  looks like {like}"


def _same_line(one: SamePerson) -> str:
    return f"{one.probability:.3f}  {_shown(one.first)} = {_shown(one.second)}"


def _mixed_line(one: MixedFolder) -> str:
    return (
        f"{one.probability:.3f}  {_shown(one.person)}: {len(one.main)} + {len(one.other)} pictures"
    )


def _leak_line(one: Leak) -> str:
    return f"{one.score:.3f}  {KINDS[one.kind]}: {_shown(one.first)} = {_shown(one.second)}"
