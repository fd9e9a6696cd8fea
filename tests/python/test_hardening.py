"""What the program and the libraries of a build are hardened with, as their ELF headers say."""

import re
import subprocess

import pytest
from conftest import built


def readelf(path, *options):
    return subprocess.run(["readelf", "--wide", *options, path], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("file", ["bin/lighthouse", "src/ops/liblighthouse_ops.so", "src/stable/liblighthouse_stable.so"])
def test_addresses_are_resolved_at_the_start_and_read_only(build_folder, file):
    path = built(build_folder / file)
    assert "Type:" in readelf(path, "--file-header") and "DYN" in readelf(path, "--file-header"), "it lies anywhere"
    assert "GNU_RELRO" in readelf(path, "--program-headers")
    assert re.search(r"FLAGS.*\bNOW\b", readelf(path, "--dynamic"))
    assert re.search(r"GNU_STACK .* RW ", readelf(path, "--program-headers")), "nothing on the stack is run"


@pytest.mark.parametrize("file", ["bin/lighthouse", "src/ops/liblighthouse_ops.so", "src/stable/liblighthouse_stable.so"])
def test_what_reads_bytes_of_others_is_checked(build_folder, file):
    symbols = readelf(built(build_folder / file), "--dyn-syms")
    assert "__stack_chk_fail" in symbols
    if file == "bin/lighthouse":  # the libraries call nothing that has such a form
        assert re.search(r"__\w+_chk\b", symbols.replace("__stack_chk_fail", ""))
