"""Becomes the program, with the libraries of this Python's torch. torch is found, and not imported: that takes seconds."""

import importlib.util
import os
import platform
import re
import sys
from pathlib import Path

from . import needs

PROGRAM = Path(__file__).with_name("lighthouse")


class Problem(Exception):
    """Why the program cannot run, and what would do."""


def torch_folder():
    """Of torch's package; of the version that the program was built for."""
    install = f"pip install 'torch=={needs.TORCH}.*'"
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        raise Problem(f"this Python has no torch ({sys.executable}); this program needs torch {needs.TORCH}: {install}")
    folder = Path(found.origin).parent
    match = re.search(r"^__version__ = '([^']*)'", (folder / "version.py").read_text(), re.MULTILINE)
    version = match[1] if match else "of a version that it does not tell"
    if not version.startswith(needs.TORCH + "."):
        raise Problem(f"torch is {version}, in {folder}; this program needs torch {needs.TORCH}, whose C++ interface it uses: "
                      f"{install}")
    return folder


def library_folders(torch):
    """Where the libraries are that the program names: in torch's own folder, and in those of NVIDIA's wheels."""
    found = importlib.util.find_spec("nvidia")
    nvidia = [folder for place in (found.submodule_search_locations if found else []) for folder in sorted(Path(place).glob("cu*/lib"))]
    folders = [torch / "lib", *nvidia]
    missing = [name for name in needs.LIBRARIES if not any((folder / name).exists() for folder in folders)]
    if missing:
        raise Problem(f"torch, in {torch}, comes without {', '.join(missing)}, which this program was built for: "
                      f"install the torch of PyPI, pip install --force-reinstall 'torch=={needs.TORCH}.*'")
    return folders


def platform_problem(machine, libc):
    """Why the system may not run the program at all."""
    if libc != "glibc":
        return "it needs glibc, and so does torch; this system has another C library (musl, as Alpine): take Debian, Ubuntu or RHEL"
    if machine != "x86_64":
        return f"it was built for x86_64, and this machine is {machine}, which is not tested: build it from source, with make build"
    return "install the package again: pip install --force-reinstall --no-deps lighthouse-attention-cli"


def variables(folders):
    """What the program and the processes that it starts find libraries by, and the Python that has their tokenizers."""
    given = os.environ.get("LD_LIBRARY_PATH")
    path = os.pathsep.join([*map(str, folders), *([given] if given else [])])
    return {"LIGHTHOUSE_PYTHON": sys.executable} | os.environ | {"LD_LIBRARY_PATH": path}


def main():
    try:
        environment = variables(library_folders(torch_folder()))
        os.execve(PROGRAM, ["lighthouse", *sys.argv[1:]], environment)
    except Problem as problem:
        print(f"lighthouse: {problem}", file=sys.stderr)
    except OSError as error:
        print(f"lighthouse: {PROGRAM} does not start: {error.strerror}; "
              f"{platform_problem(platform.machine(), platform.libc_ver()[0])}", file=sys.stderr)
    return 1
