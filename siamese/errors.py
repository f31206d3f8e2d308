"""The one error that is the user's to mend."""


class UserError(Exception):
    """Bad input or a bad setting: a one-line message that names the file or setting and the fix.

    The commands print it without a traceback and exit with code 2.
    """
