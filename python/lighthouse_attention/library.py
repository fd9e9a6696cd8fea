"""Finds and loads the operator library, and asks it what is known before anything runs."""

import array
import ctypes
import functools
import os
import platform
from pathlib import Path

import torch

from .versions import release

MINIMUM_TORCH = (2, 10)
FILE_NAME = "liblighthouse_stable.so"


class LibraryError(ImportError):
    """The operators cannot be loaded; the message says why and what would do."""


def find():
    """The library's file: `LIGHTHOUSE_LIBRARY` where that is set (a build of one's own), or beside this file."""
    chosen = os.environ.get("LIGHTHOUSE_LIBRARY")
    return Path(chosen) if chosen else Path(__file__).parent / FILE_NAME


def _check_torch():
    if release(torch.__version__) < MINIMUM_TORCH:
        raise LibraryError(f"lighthouse_attention: torch is {torch.__version__}; it must be "
                           f"{'.'.join(map(str, MINIMUM_TORCH))} or newer, whose stable ABI the operators use: "
                           f"pip install --upgrade torch")
    loaded = [path for path in torch.ops.loaded_libraries if Path(path).name == FILE_NAME]
    if loaded and str(find()) not in loaded:
        raise LibraryError(f"lighthouse_attention: this process has loaded the operators already, from {loaded[0]}; import "
                           f"{find()} in a new process (in a notebook: restart the kernel)")


def platform_problem(machine, libc):
    """Why a library may not load on such a machine, and what would do."""
    if libc != "glibc":
        return "It needs glibc, and so does torch; this system has another C library (musl, as Alpine): take Debian, Ubuntu or RHEL"
    build = "build it for this machine with pip install --no-binary lighthouse-attention ."
    if machine not in ("x86_64", "AMD64"):
        return f"Wheels are for x86_64, and this machine is {machine}, which is not tested: {build}"
    return (f"It was built for another platform, or torch {torch.__version__} lacks a function of the stable ABI of torch 2.10; "
            f"{build}")


def _load():
    _check_torch()
    path = find()
    if not path.exists():
        raise LibraryError(f"lighthouse_attention: {path} does not exist; install the package (pip install .), or set "
                           f"LIGHTHOUSE_LIBRARY to the {FILE_NAME} of a build")
    try:
        torch.ops.load_library(path)
    except OSError as error:
        raise LibraryError(f"lighthouse_attention: {path} does not load: {error}. "
                           + platform_problem(platform.machine(), platform.libc_ver()[0])) from None
    library = ctypes.CDLL(str(path))
    library.lighthouse_version.restype = ctypes.c_char_p
    library.lighthouse_torch_version.restype = ctypes.c_char_p
    library.lighthouse_cuda_architectures.restype = ctypes.c_char_p
    library.lighthouse_cpu_error.restype = ctypes.c_char_p
    return library


_library = _load()


def _text(value):
    return value.decode()


def version():
    """The version of the library, and so of this project."""
    return _text(_library.lighthouse_version())


def built_with():
    """What the library was compiled for: the headers of which torch, which CUDA (None without kernels), which GPUs."""
    cuda = _library.lighthouse_cuda_version()
    return {"torch": _text(_library.lighthouse_torch_version()),
            "cuda": f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None,
            "architectures": _text(_library.lighthouse_cuda_architectures())}


def driver_cuda():
    """(major, minor) of the newest CUDA that this machine's driver knows, or None."""
    version = _library.lighthouse_driver_version()
    return (version // 1000, version % 1000 // 10) if version else None


def cpu_error():
    """Empty, or what this processor lacks for the CPU kernels."""
    return _text(_library.lighthouse_cpu_error())


class _Row(ctypes.Structure):
    """lighthouse_row of src/stable/host.h."""

    _fields_ = [("operation", ctypes.c_char_p), ("seq_len", ctypes.c_int64), ("layout", ctypes.POINTER(ctypes.c_int64)),
                ("layout_size", ctypes.c_int64), ("cu_seqlens", ctypes.POINTER(ctypes.c_int64)), ("num_offsets", ctypes.c_int64)]


def _integers(values):
    return (ctypes.c_int64 * len(values)).from_buffer(array.array("q", values)) if values else _zeros(1)


def _zeros(count):
    return (ctypes.c_int64 * count)()


def _ask(function, row, *arguments):
    """function of the library about a row: (operation, seq_len, layout, cu_seqlens)."""
    operation, seq_len, layout, cu_seqlens = row
    offsets = () if cu_seqlens is None else (_integers(cu_seqlens), len(cu_seqlens))
    error = ctypes.create_string_buffer(512)
    row = _Row(operation.encode(), seq_len, _integers(layout), len(layout), *offsets)
    if function(ctypes.byref(row), *arguments, error, ctypes.c_int64(len(error))) != 0:
        raise ValueError(_text(error.value))


def plan(operation, seq_len, layout, cu_seqlens=None):
    """Lengths of a row of `seq_len` tokens (algorithm.md, sections (iii) and "Packed documents").

    Args:
        operation: the name that messages start with.
        layout: (num_levels, pooling_factor, topk, tile_topk); of a part of a row as in operators.
        cu_seqlens: None, or the offsets of packed documents.

    Returns:
        (gathered_len, num_slots, num_rows), the last a tuple: the rows of each document.

    Raises:
        ValueError: an argument is out of range.
    """
    return _plan(operation, seq_len, tuple(layout), None if cu_seqlens is None else tuple(cu_seqlens))


@functools.lru_cache(maxsize=256)  # every layer of a model asks for the same row
def _plan(operation, seq_len, layout, cu_seqlens):
    num_documents = max(len(cu_seqlens or ()) - 1, 1)
    sizes, num_rows = _zeros(2), _zeros(num_documents)
    _ask(_library.lighthouse_plan, (operation, seq_len, layout, cu_seqlens), sizes, num_rows)
    return sizes[0], sizes[1], tuple(num_rows)


def token_offsets(operation, seq_len, layout, cu_seqlens, num_ranks):
    """Where ranks that share a row are cut: the first token of each, and `seq_len`."""
    offsets = _zeros(max(num_ranks, 0) + 1)
    _ask(_library.lighthouse_token_offsets, (operation, seq_len, layout, cu_seqlens), ctypes.c_int64(num_ranks), offsets)
    return offsets[:]


def context_plan(operation, layout, cu_seqlens, token_offsets, rank):
    """Of rank `rank` where ranks own the tokens between `token_offsets`.

    Returns:
        (row_offsets, sizes): the rows of each rank likewise; tile_begin, tile_end, whether rows of the rank before reach its
        tokens, tokens of the rank after that its rows reach, F - 1.

    Raises:
        ValueError: an argument is out of range, or a rank does not begin and end with a tile.
    """
    row_offsets, sizes = _zeros(len(token_offsets)), _zeros(5)
    _ask(_library.lighthouse_context_plan, (operation, token_offsets[-1], layout, cu_seqlens),
         ctypes.c_int64(len(token_offsets) - 1), ctypes.c_int64(rank), _integers(token_offsets), row_offsets, sizes)
    return row_offsets[:], sizes[:]
