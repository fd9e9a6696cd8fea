"""Text that others chose, such as names of folders and arms, as it may be drawn and printed."""

import re

REPLACEMENT = "\ufffd"
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # vl-convert aborts the process on these
NOT_ONE_LINE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
LONGEST = 40  # of a damaged value in a message


def drawable(value):
    """A text, or a specification with all its texts, without what XML cannot have: control characters, and bytes of names
    that are not UTF-8."""
    if isinstance(value, str):
        return NOT_XML.sub(REPLACEMENT, value)
    if isinstance(value, dict):
        return {key: drawable(each) for key, each in value.items()}
    return [drawable(each) for each in value] if isinstance(value, (list, tuple)) else value


def one_line(text):
    """For a terminal."""
    return NOT_ONE_LINE.sub(REPLACEMENT, text)


def brief(value):
    """A value of a file as a message shows it."""
    shown = repr(value)
    return shown if len(shown) <= LONGEST else shown[:LONGEST] + "…"
