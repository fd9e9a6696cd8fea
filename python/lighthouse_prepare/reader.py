"""Files as chunks: runs of raw records (lines, documents, rows), in a fixed order. Parsing them is the workers'."""

import bisect
import itertools
from dataclasses import dataclass

from .errors import PrepareError, cut, library, some
from .streams import AGAIN, BLOCK, blocks, opened

CHUNK = BLOCK      # bytes of text that go to a worker at once
ROWS = 256         # of a table that are read at once, or fewer: about CHUNK bytes
MOST_TOGETHER = 1000  # chunks, of small files
LINE_FACTOR = 8    # a line may be so many times longer than a document: escapes, and other keys


@dataclass(frozen=True)
class Reading:
    """How files become documents."""
    text_key: str         # of JSON objects, and the column of tables
    separator: bytes      # between the documents of a text file; b"": the file is one
    max_document: int     # bytes
    skip_bad: bool        # leave documents out that cannot be read, instead of stopping


@dataclass(frozen=True)
class Chunk:
    """What is read after one another from one file."""
    name: str
    kind: str
    first: int     # number of its first record in the file, from 0
    records: list  # bytes of each document (None: a row without); of lines: one element with any number of them
    after: tuple   # (file, record): where reading goes on after it; record counts from 0
    disk: int      # bytes of files read so far, as they lie on disk


def read_sources(sources, start, reading):
    """Yields lists of chunks, about CHUNK bytes of text together, from `start` = (file, record) on. A list without records may
    come, which says how far reading is."""
    together, together_size = [], 0
    disk = sum(source.bytes for source in sources[:start[0]])
    for file in range(start[0], len(sources)):
        source = sources[file]
        skipped = start[1] if file == start[0] else 0
        number = skipped
        for records, count, size, place in READERS[source.kind](source, skipped, reading):
            together.append(Chunk(source.name, source.kind, number, records, (file, number + count), disk + place))
            number += count
            together_size += size
            if together_size >= CHUNK:
                yield together
                together, together_size = [], 0
        disk += source.bytes
        together.append(Chunk(source.name, source.kind, number, [], (file + 1, 0), disk))
        if len(together) >= MOST_TOGETHER:
            yield together
            together, together_size = [], 0
    if together:
        yield together


def read_lines(source, skipped, reading):
    """Yields (records, number of them, bytes, place in the file) of whole lines; the last may have no end."""
    limit = LINE_FACTOR * reading.max_document
    number, begun, length, place = 0, [], 0, 0
    for block, place in blocks(source):
        end = block.rfind(b"\n") + 1
        if end:
            data = b"".join([*begun, block[:end]])
            begun, length = [], 0
            count = data.count(b"\n")
            dropped = min(max(skipped - number, 0), count)
            number += count
            if count > dropped:
                data = data.split(b"\n", dropped)[-1] if dropped else data
                yield [data], count - dropped, len(data), place
        begun.append(block[end:])
        length += len(begun[-1])
        if length > limit:
            raise PrepareError(f"{source.name}:{number + 1}: a line of more than {limit >> 20} MiB; are its lines ended by "
                               "newlines? --max-document-mib allows more")
    if length and number >= skipped:
        yield [b"".join(begun)], 1, length, place


def read_text(source, skipped, reading):
    """The file is a document, or it is several with a separator between them."""
    number, rest, place = 0, b"", 0
    for block, place in blocks(source):
        *whole, rest = (rest + block).split(reading.separator) if reading.separator else (rest + block,)
        wanted = whole[max(skipped - number, 0):]
        number += len(whole)
        if wanted:
            yield wanted, len(wanted), sum(map(len, wanted)), place
        if len(rest) > reading.max_document:
            check_separates(reading, source.name, number)
            break  # one byte more than is allowed is enough to refuse it
    if number >= skipped:
        yield [rest], 1, len(rest), place


def check_separates(reading, name, number):
    if reading.separator:
        raise PrepareError(f"{name}: document {number + 1} is longer than {reading.max_document >> 20} MiB; is "
                           f"{reading.separator.decode()!r} what separates documents? --max-document-mib allows more")


def read_table(source, skipped, reading):
    """The text column of a parquet file, from the row group on that holds row `skipped`."""
    parquet, arrow = library("pyarrow.parquet", "pyarrow"), library("pyarrow", "pyarrow")
    with opened(source) as file:
        try:
            table = parquet.ParquetFile(file, pre_buffer=False, buffer_size=BLOCK, page_checksum_verification=True)
            check_column(table.schema_arrow, reading.text_key, source.name, arrow.types)
            groups = [table.metadata.row_group(group) for group in range(table.metadata.num_row_groups)]
            ends = [*itertools.accumulate((group.num_rows for group in groups), initial=0)]
            first = bisect.bisect_right(ends, skipped) - 1
            for index in range(first, len(groups)):
                number = ends[index]
                for batch in table.iter_batches(rows_at_once(groups[index], reading.text_key), [index], [reading.text_key],
                                                use_threads=False):
                    rows = batch.column(reading.text_key).cast(arrow.large_binary()).to_pylist()[max(skipped - number, 0):]
                    number += batch.num_rows
                    yield from parts_of(rows, number, source.bytes / ends[-1])
        except (arrow.ArrowException, OSError) as error:  # of a damaged page it is the latter
            reason = str(error).splitlines()[0]
            raise PrepareError(f"{source.name}: is cut short or damaged, or no parquet: {reason}; {AGAIN}") from error


def rows_at_once(group, name):
    """Of a row group: about CHUNK bytes of the column, whose rows may be long."""
    columns = (group.column(index) for index in range(group.num_columns))
    size = sum(column.total_uncompressed_size for column in columns if column.path_in_schema == name)
    return max(1, min(ROWS, CHUNK * group.num_rows // max(size, 1)))


def parts_of(rows, end, bytes_each):
    """Yields what a reader yields, about CHUNK bytes of text each; `end`: number of the row behind the last."""
    part, size, number = [], 0, end - len(rows)
    for number, row in enumerate(rows, number + 1):
        part.append(row)
        size += len(row or b"")
        if size >= CHUNK or number == end:
            yield part, len(part), size, int(number * bytes_each)
            part, size = [], 0


def check_column(schema, key, name, types):
    if key not in schema.names:
        raise PrepareError(f"{name}: has no column {key!r}; --text-key names one of {some(schema.names) or 'none'}")
    if schema.names.count(key) > 1:
        raise PrepareError(f"{name}: has {schema.names.count(key)} columns {key!r}; give it one, or --text-key names another")
    kind = schema.field(key).type
    values = kind.value_type if types.is_dictionary(kind) else kind  # of pandas' categories
    if not any(is_text(values) for is_text in (types.is_string, types.is_large_string, types.is_string_view, types.is_binary,
                                               types.is_large_binary, types.is_binary_view)):
        raise PrepareError(f"{name}: column {key!r} is of type {cut(kind)}, not of text; --text-key names another")


READERS = {"lines": read_lines, "text": read_text, "table": read_table}
