"""Raw records as texts."""

import json

from .errors import PrepareError, some

REMEDY = "; mend it, or leave such documents out with --skip-bad"


class BadDocument(Exception):
    """What is wrong with one record, and in which line of the file where the record has several."""

    def __init__(self, text, line=None):
        super().__init__(text)
        self.line = line


def texts_of(chunk, reading):
    """([text of each document], [what is wrong with each that is left out]). Raises PrepareError for the first that is wrong
    where none may be left out."""
    texts, problems = [], []
    records = chunk.records[0].split(b"\n") if chunk.kind == "lines" and chunk.records else chunk.records
    for number, record in enumerate(records, chunk.first + 1):
        try:
            texts.append(checked(PARSERS[chunk.kind](record, reading.text_key), reading.max_document))
        except BadDocument as error:
            problem = f"{place(chunk, number, error.line)}: {error}"
            if not reading.skip_bad:
                raise PrepareError(problem + REMEDY) from None
            problems.append(problem)
    return [text for text in texts if text is not None], problems


def place(chunk, number, line):
    if chunk.kind == "table":
        return f"{chunk.name}: row {number}"
    if chunk.kind == "lines":
        return f"{chunk.name}:{number}"
    return f"{chunk.name}:{line}" if line and number == 1 else f"{chunk.name}: document {number}"


def checked(text, max_document):
    if text is not None and len(text) * 4 > max_document and len(text.encode()) > max_document:
        raise BadDocument(f"a document of more than {max_document >> 20} MiB; --max-document-mib allows more (a worker takes "
                          "about 150 bytes of memory for each), or name what separates documents in it with --separator")
    return text


def parse_line(line, key):
    """None for a blank line."""
    text = decode(line)
    if not text.strip():
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else error
        raise BadDocument(f"is no JSON: {reason}") from None
    if not isinstance(value, dict):
        raise BadDocument(f"is a JSON {type(value).__name__}, not an object with a key {key!r}")
    if key not in value:
        raise BadDocument(f"has no key {key!r}; --text-key names one of {some(map(repr, value)) or 'its none'}")
    return check_text(value[key], f"the value of {key!r}")


def check_text(value, what):
    if not isinstance(value, str):
        raise BadDocument(f"{what} is {'null' if value is None else type(value).__name__}, not text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadDocument(f"{what} has half of a surrogate pair at character {error.start + 1}, which is no text") from None
    return value


def decode(data, _=None):
    try:
        return data.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadDocument(f"is not UTF-8: byte 0x{data[error.start]:02x} at {error.start}; iconv converts it", line) from None


def parse_row(value, key):
    if value is None:
        raise BadDocument(f"the value of {key!r} is null, not text")
    return decode(value)


PARSERS = {"lines": parse_line, "text": decode, "table": parse_row}
