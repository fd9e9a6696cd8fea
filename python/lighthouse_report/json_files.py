"""JSON from files; errors name file and line."""

import json
import math

from .errors import Damaged, ReportError
from .text import brief

LARGEST = 1e100   # of a number: far beyond what 32-bit floats hold, and its square is still a 64-bit one
MOST = 10**15     # of what is counted: steps, tokens, bytes, seconds
LEAST_LOSS = -0.01  # below 0 by rounding only
KINDS = {dict: "an object", list: "a list", str: "a text"}


def read_text(path):
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ReportError(f"{path}:{line}: damaged: not UTF-8") from error
    except OSError as error:
        raise ReportError(f"{path}: cannot be read: {error.strerror}") from error


def read_json(path):
    """The object in a file."""
    return parse_object(read_text(path), path, 1)


def read_json_lines(path):
    """[(line number, object)]. A last line without its end that does not parse is one that is being written: left out."""
    lines = read_text(path).split("\n")
    objects = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            objects.append((number, parse_object(line, path, number)))
        except ReportError:
            if number < len(lines):
                raise
    return objects


def parse_object(text, path, first_line):
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ReportError(f"{path}:{first_line + error.lineno - 1}: damaged: {error.msg} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{path}:{first_line}: damaged: a number of too many digits, or nested too deeply") from error
    if not isinstance(value, dict):
        raise ReportError(f"{path}:{first_line}: damaged: not a JSON object")
    return value


def number(value, name, low=-LARGEST, high=LARGEST):
    """A finite number within its limits, as it is; None for null and what is not finite. Raises Damaged for anything else."""
    if value is None or isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Damaged(f"{name} is {brief(value)}; must be a number")
    if not low <= value <= high:
        raise Damaged(f"{name} is {brief(value)}; must be from {low:g} to {high:g}")
    return value


def finite(value, name, low=-LARGEST, high=LARGEST):
    """A number that must be there. Raises Damaged."""
    if number(value, name, low, high) is None:
        raise Damaged(f"{name} is {brief(value)}; must be a finite number")
    return value


def whole(value, name, low=0, high=MOST):
    """An integer that must be there. Raises Damaged."""
    if type(value) is not int or not low <= value <= high:
        raise Damaged(f"{name} is {brief(value)}; must be an integer from {low} to {high}")
    return value


def member(record, key, kind):
    """What an object has under a key that must be there. Raises Damaged."""
    if key not in record:
        raise Damaged(f"{key} is missing")
    return of_kind(record[key], kind, key)


def optional(record, key, kind, default=None):
    """The same of a key that may be missing, or null."""
    return default if record.get(key) is None else of_kind(record[key], kind, key)


def of_kind(value, kind, name):
    if not isinstance(value, kind):
        raise Damaged(f"{name} is {brief(value)}; must be {KINDS[kind]}")
    return value


def objects(values, name):
    """A list of objects. Raises Damaged."""
    return [of_kind(value, dict, f"an entry of {name}") for value in of_kind(values, list, name)]
