"""The one error that is the user's to mend."""


class ReportError(Exception):
    """Names the file or the run, what is wrong with it, and what would do. Exit code 1."""
