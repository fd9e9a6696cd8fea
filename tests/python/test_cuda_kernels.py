"""What the compiler says of the CUDA kernels: none keeps anything in local memory, neither spilled registers nor arrays."""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

# Kernels that every call runs; each occurs in several types and sizes.
HOT = ["pool_kernel", "select_kernel", "rows_from_units_kernel", "tokens_from_rows_kernel", "copy_coarse_kernel",
       "token_norms_kernel", "gla_chunks_kernel", "gla_scan_kernel", "add_norm_kernel", "norm_backward_kernel",
       "split_norm_kernel", "finish_norm_kernel", "rotate_heads_kernel", "pack_heads_kernel", "swiglu_kernel",
       "swiglu_backward_kernel", "cross_entropy_warp_kernel", "cross_entropy_block_kernel"]

# Bytes of stack that are known of, by architecture: the table of docs/python.md. TURNED: bf16 heads that are turned.
TURNED, NORMS = "pool_kernelI13__nv_bfloat16Li8ELi(%s)ELb1E", "token_norms_kernelIfLi4ELi(%s)E"
KNOWN = {
    "sm_80": {TURNED % "32": 8, NORMS % "16|32": 8, r"tokens_from_rows_kernelI(6__half|13__nv_bfloat16)Li8ELi16E\S*ELb0E": 24},
    "sm_86": {TURNED % "16|32": 8, NORMS % "16|32": 8},
    "sm_89": {TURNED % "16|32": 8, NORMS % "16|32": 8},
    "sm_90a": {TURNED % "8": 8},
    "sm_100": {NORMS % "8": 8},
    "sm_103": {NORMS % "8": 8},
    "sm_120": {TURNED % "32": 8},
}


def cuobjdump():
    """The CUDA toolkit's, or the one that Triton brings."""
    found = shutil.which("cuobjdump")
    triton = importlib.util.find_spec("triton")
    if not found and triton:
        found = Path(triton.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not found or not Path(found).exists():
        pytest.skip("no cuobjdump: it comes with the CUDA toolkit and with triton")
    return found


@pytest.fixture(scope="module")
def resources(build_folder):
    """(architecture, mangled kernel name) -> (registers, bytes of stack, bytes of local memory)."""
    uses = {}
    for layer in ["stages", "nn"]:
        library = build_folder / "src" / layer / f"liblighthouse_{layer}.a"
        report = subprocess.run([cuobjdump(), "-res-usage", library], capture_output=True, text=True, timeout=300).stdout
        for part in re.split(r"^arch = ", report, flags=re.MULTILINE)[1:]:
            found = re.findall(r"Function (\S+):\s*\n\s*REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", part)
            uses |= {(part.split()[0], name): tuple(map(int, numbers)) for name, *numbers in found}
    if not uses:
        pytest.skip(f"{build_folder} holds no CUDA kernels: built without nvcc")
    return uses


@pytest.mark.parametrize("kernel", HOT)
def test_hot_kernels_keep_everything_in_registers(resources, kernel):
    found = {name: use for name, use in resources.items() if kernel in name[1]}
    assert {architecture for architecture, _ in found} == {architecture for architecture, _ in resources}, f"{kernel}: {found}"

    def known(architecture, name):
        return next((size for part, size in KNOWN.get(architecture, {}).items() if re.search(part, name)), 0)

    in_memory = {name: use for name, use in found.items() if use[1] > known(*name) or use[2]}
    assert not in_memory, f"(registers, stack, local): {in_memory}"
