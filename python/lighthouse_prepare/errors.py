"""What is the user's to mend: one message that names the file, the line, what is wrong, and what would do."""

import contextlib
import importlib
import os


class PrepareError(Exception):
    """Exit code 1."""


class UsageError(PrepareError):
    """An option, or a source or tokenizer that is not there. Exit code 2."""


class Stopped(PrepareError):
    """A signal ended the run; what is done is kept. Exit code 1."""


def check_there(path, before="", remedy=""):
    """Of what an argument names."""
    try:
        os.stat(path)
    except FileNotFoundError as error:
        raise UsageError(f"{before}{path}: no such file or folder{remedy}") from error
    except OSError as error:
        raise UsageError(f"{before}{cut(path)}: cannot be read: {error.strerror}") from error


def cut(text, most=200):
    """What a message quotes: of the length that a person reads."""
    text = str(text)
    return text if len(text) <= most else f"{text[:most - 1]}…"


def some(names, most=20):
    """The first of many names."""
    names = [cut(name, 60) for name in names]
    return ", ".join(names[:most]) + (f", … ({len(names)} in all)" if len(names) > most else "")


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
