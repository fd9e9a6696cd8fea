"""What is the user's to mend: one message that names the file, the line, what is wrong, and what would do."""

import contextlib
import importlib


class PrepareError(Exception):
    """Exit code 1."""


class UsageError(PrepareError):
    """An option, or a source or tokenizer that is not there. Exit code 2."""


class Stopped(PrepareError):
    """A signal ended the run; what is done is kept. Exit code 1."""


@contextlib.contextmanager
def writing(path, remedy=""):
    """An OSError of what is written becomes words."""
    try:
        yield
    except OSError as error:
        raise PrepareError(f"{path}: cannot be written: {error.strerror or error}{remedy}") from error


def library(name, package):
    """A module that is imported where it is needed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise PrepareError(f"{package} is not installed: pip install 'lighthouse-attention[data]'") from error
