"""The errors that are the user's to mend."""


class ReportError(Exception):
    """Names the file or the run, what is wrong with it, and what would do. Exit code 1."""


class UsageError(ReportError):
    """The same of an argument. Exit code 2."""


class Damaged(Exception):
    """Says what is wrong with a value; who reads the file adds its name and line."""
