"""JSON from files; errors name file and line."""

import json
import math

from .errors import ReportError


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
        raise ReportError(f"{path}:{first_line}: damaged: {error}") from error
    if not isinstance(value, dict):
        raise ReportError(f"{path}:{first_line}: damaged: not a JSON object")
    return value


def number(value):
    """A finite number as it is, None for null and what is not finite. Raises TypeError for anything else."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is not a number")
    return value if math.isfinite(value) else None


def finite(value):
    """A number that must be there. Raises TypeError."""
    if number(value) is None:
        raise TypeError(f"{value!r} is not a finite number")
    return value
