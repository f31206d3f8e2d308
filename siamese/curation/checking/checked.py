"""What a check found, and how it is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from siamese.curation.checking.findings import Finding, Found
from siamese.errors import first_few
from siamese.files.shown import shown


@dataclass(frozen=True)
class Checked:
    """A folder that was checked.

    Attributes:
        root: the folder.
        out: where the results are.
        counts: usable pictures by person.
        files: number of files in people's folders.
        findings: the worst first; kinds without a case are left out.
        notes: what the reader must know.
    """

    root: Path
    out: Path
    counts: Mapping[str, int]
    files: int
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    def balance(self) -> dict[str, float]:
        """Pictures per person: least, quartiles, most; empty without a person."""
        ordered = sorted(self.counts.values())
        if not ordered:
            return {}
        last = len(ordered) - 1
        shares = {"least": 0.0, "lower quartile": 0.25, "median": 0.5, "upper quartile": 0.75}
        shares["most"] = 1.0
        return {name: ordered[round(share * last)] for name, share in shares.items()}

    def summary(self) -> str:
        """One line."""
        line = (
            f"{self.root}: {len(self.counts)} people, {sum(self.counts.values())} usable pictures"
        )
        balance = self.balance()
        if balance:
            line += (
                f"; per person {balance['least']} to {balance['most']}, median {balance['median']}"
            )
        return line

    def severities(self) -> Counter[str]:
        """Kinds of findings by severity."""
        return Counter(finding.about.severity for finding in self.findings)

    def verdict(self) -> str:
        """In a sentence: how many kinds of findings, or that there is nothing to find them in."""
        if not self.counts:
            return (
                "nobody has a usable picture in it; put each person's pictures into a folder of "
                f"their own, e.g. {self.root.resolve().name}/NAME/picture.jpg"
            )
        kinds = [
            f"{number} kind{'' if number == 1 else 's'} of {name}s"
            for name in ("error", "warning", "note")
            if (number := self.severities()[name])
        ]
        return f"found: {', '.join(kinds)}" if kinds else "nothing is wrong with it"

    def text(self) -> str:
        """All findings by severity: how many, the first of them, the command that mends them."""
        lines = [shown(self.summary()), *(f"note: {shown(note)}" for note in self.notes)]
        for finding in self.findings:
            about = finding.about
            named = first_few([shown(_case(case)) for case in finding.found])
            lines += [
                "",
                f"{about.severity}: {about.title}: {len(finding.found)}",
                f"  {about.meaning}",
                f"  {named}",
            ]
            if finding.command is not None:
                lines.append(f"  $ {finding.command}")
        lines.append("")
        if not self.findings or not self.counts:
            lines.append(shown(self.verdict()))
        if any(finding.plan is not None for finding in self.findings):
            lines.append("Plans move files, siamese-data restore undoes it. Then check once more.")
        page, sheet, data = (self.out / f"check.{ending}" for ending in ("html", "png", "json"))
        lines.append(shown(f"page {page}, contact sheet {sheet}, all files {data}"))
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "folder": str(self.root),
            "people": len(self.counts),
            "usable_pictures": sum(self.counts.values()),
            "files": self.files,
            "findings": [finding.as_dict() for finding in self.findings],
            "pictures_per_person": {**self.balance(), "by_person": dict(self.counts)},
            "notes": list(self.notes),
        }


def _case(case: Found) -> str:
    names = " = ".join(case.paths[:3]) + (" = ..." if len(case.paths) > 3 else "")
    return f"{names} ({case.detail})" if case.detail else names
