"""The bytes of a file, decompressed, a block at a time."""

import contextlib
import gzip
import zlib

from .errors import PrepareError, library

BLOCK = 1 << 20
AGAIN = "copy or download it again"
COMPRESSED_BLOCK = 1 << 15  # of zstd, whose blocks may grow ten-thousandfold


@contextlib.contextmanager
def opened(source):
    """The file, open; errors of the system and of compression become words."""
    try:
        with open(source.path, "rb") as file:
            yield file
    except EOFError as error:
        raise PrepareError(f"{source.name}: is cut short: the compressed data ends in the middle; {AGAIN}") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise PrepareError(f"{source.name}: is damaged, or not compressed with gzip: {error}; {AGAIN}") from error
    except OSError as error:
        raise PrepareError(f"{source.name}: cannot be read: {error.strerror or error}") from error


def blocks(source):
    """Yields (bytes, place in the file on disk)."""
    with opened(source) as file:
        read = {"": plain, ".gz": gunzip, ".zst": unzstd}[source.compression]
        for block in read(file, source):
            yield block, file.tell()


def plain(file, _):
    while block := file.read(BLOCK):
        yield block


def gunzip(file, source):
    if source.bytes == 0:
        raise EOFError
    with gzip.open(file) as stream:
        yield from plain(stream, source)


def unzstd(file, source):
    """Frame after frame. The library's own reader takes a file that is cut short for one that ends."""
    zstandard = library("zstandard", "zstandard")
    frame, rest, complete = None, b"", False
    try:
        while data := rest or file.read(COMPRESSED_BLOCK):
            frame = frame or zstandard.ZstdDecompressor().decompressobj()
            if block := frame.decompress(data):
                yield block
            rest, complete = frame.unused_data, frame.eof
            if complete:
                frame = None
    except zstandard.ZstdError as error:
        remedy = "decompress it first (zstd -d --long=31)" if "too much memory" in str(error) else AGAIN
        raise PrepareError(f"{source.name}: is damaged, or not compressed with zstd: {error}; {remedy}") from error
    if not complete:
        raise EOFError
