#!/usr/bin/env python3
"""libraries.py COMPILER FOLDER: libc, libm and libstdc++ for the linker, as manylinux_2_28 has them (PEP 600): of the functions of
this machine's libraries those versions that were there then. They hold no code: a program finds the real ones when it runs.
Functions that were in libpthread, libdl and librt then are of libc here; libtorch loads those three.

What a newer compiler's headers call and the old libc lacks is in absent.cpp and start.cpp; what the old libstdc++ lacks is taken from this
machine's libstdc++.a, as RHEL's toolsets do. All else, exceptions included, is of the one libstdc++ of the process.
"""

import re
import subprocess
import sys
from pathlib import Path

NEWEST = {"GLIBC": (2, 28), "GLIBCXX": (3, 4, 24), "CXXABI": (1, 3, 11)}


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def file_of(compiler, name):
    return run(compiler, f"-print-file-name={name}").strip()


def parsed(version):
    """("GLIBC", (2, 28)) of "GLIBC_2.28"; None of one that is not of the public interface."""
    match = re.fullmatch(r"([A-Z]+)_([\d.]+)", version)
    return match and (match[1], tuple(map(int, match[2].split("."))))


def symbols(library):
    """name -> (version, type, size), the newest version that manylinux_2_28 has."""
    found = {}
    for line in run("readelf", "--dyn-syms", "--wide", library).splitlines():
        match = re.match(r"\s*\d+: \w+\s+(\w+) (FUNC|IFUNC|OBJECT)\s+\w+\s+\w+\s+(?!UND)\w+ (\w[\w.$]*)@@?(\S+)", line)
        version = match and parsed(match[4])
        if not version or version[0] not in NEWEST or version[1] > NEWEST[version[0]]:
            continue
        if match[3] not in found or version > parsed(found[match[3]][0]):
            found[match[3]] = (match[4], match[2], int(match[1], 0))
    return found


def assembly(found):
    """Objects with room and alignment of their own: a program that is not position-independent code holds copies of them."""
    yield ".data"
    for number, (name, (version, kind, size)) in enumerate(sorted(found.items())):
        yield f".globl s{number}; .type s{number}, {'@object' if kind == 'OBJECT' else '@function'}; .size s{number}, {size}"
        yield f".balign 64; s{number}: .skip {size if kind == 'OBJECT' else 0}; .symver s{number}, {name}@@{version}"
    yield '.section .note.GNU-stack,"",@progbits'


def write_library(compiler, name, folder):
    found = symbols(file_of(compiler, name))
    source, versions = folder / f"{name}.s", folder / f"{name}.map"
    source.write_text("\n".join(assembly(found)) + "\n")
    nodes = sorted({version for version, _, _ in found.values()}, key=parsed)
    versions.write_text("".join(f"{node} {{}};\n" for node in nodes[:-1]) + f"{nodes[-1]} {{ local: *; }};\n")
    run(compiler, "-shared", "-nostdlib", f"-Wl,-soname,{name},--version-script,{versions}", "-o", str(folder / name), str(source))


def main(compiler, folder):
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("libc.so.6", "libm.so.6", "libstdc++.so.6"):
        write_library(compiler, name, folder)
    for name in ("absent", "start"):
        run(compiler, "-std=c++20", "-O2", "-fPIC", "-c", str(Path(__file__).with_name(f"{name}.cpp")), "-o", str(folder / f"{name}.o"))
    run("ar", "rcs", str(folder / "libabsent.a"), str(folder / "absent.o"), str(folder / "start.o"))

    (folder / "libm.so").write_text(f"GROUP ( {folder}/libm.so.6 )\n")
    (folder / "libstdc++.so").write_text(f"GROUP ( {folder}/libstdc++.so.6 {file_of(compiler, 'libstdc++.a')} )\n")
    (folder / "libc.so").write_text(f"GROUP ( {folder}/libc.so.6 {folder}/libabsent.a {file_of(compiler, 'libc_nonshared.a')} "
                                    f"AS_NEEDED ( {file_of(compiler, 'ld-linux-x86-64.so.2')} ) )\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
