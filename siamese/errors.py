"""The one error that is the user's to mend, and the words it is told in."""

from __future__ import annotations

from collections.abc import Sequence


class UserError(Exception):
    """Bad input or a bad setting: a one-line message that names the file or setting and the fix.

    The commands print it without a traceback and exit with code 2.
    """


def first_few(names: Sequence[str]) -> str:
    """The first three of some names, for a message of one line."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


class Diverged(UserError):  # noqa: N818 - a state of the run, which a study records
    """The loss of a run became NaN or infinite; what was saved before stands."""
