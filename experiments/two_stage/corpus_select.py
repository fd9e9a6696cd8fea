"""Which files are text worth training on. Everything here is a function of a file's path and bytes alone."""

import bz2
import re

from corpus_packages import KIND_OF_EXTENSION, TEST_FOLDERS

_LABELLED_COMMENT = re.compile(rb"^\s*(?://|[;#!*])+\s*[\w-]+:", re.MULTILINE)


def is_test(path):
    return not TEST_FOLDERS.isdisjoint(path.split("/")[:-1])


def is_held_out(package, path):
    return path.startswith(package.held_out)


def kind_of(package, path):
    """A key of KINDS with 'tests: ' before it below test folders, or None for a file that is no text for us."""
    name = path.rpartition("/")[2]
    stem, dot, extension = name.rpartition(".")
    if not stem or not dot:
        kind = "C and C++" if not dot and path.startswith(package.extensionless) else None
    else:
        kind = KIND_OF_EXTENSION.get(extension)
    return f"tests: {kind}" if kind and is_test(path) else kind


def limits_of(package, path):
    """The limits that the path is under, or None where the package leaves it out."""
    if kind_of(package, path) is None or path.startswith(package.left_out) or not path.startswith(package.chosen):
        return None
    return package.test if is_test(path) else package.source


def is_text(limits, data):
    """Whether bytes are UTF-8 text within the limits."""
    if not limits.min_bytes <= len(data) <= limits.max_bytes or b"\0" in data:
        return False
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    num_lines = data.count(b"\n") + 1
    return (len(data) <= limits.max_mean_line * num_lines
            and len(data) - len(data.translate(None, b"0123456789")) <= limits.max_digits * len(data)
            and len(_LABELLED_COMMENT.findall(data)) <= limits.max_check_lines * num_lines
            and len(data) <= limits.max_packing * len(bz2.compress(data)))
