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

# Bytes of stack that are known of: of bf16 heads of 64 channels that are turned, one pair of registers.
KNOWN = {"pool_kernelI13__nv_bfloat16Li8ELi8ELb1E": 8}


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
    """Mangled kernel name -> (registers, bytes of stack, bytes of local memory)."""
    lines = []
    for layer in ["stages", "nn"]:
        library = build_folder / "src" / layer / f"liblighthouse_{layer}.a"
        report = subprocess.run([cuobjdump(), "-res-usage", library], capture_output=True, text=True, timeout=300).stdout
        found = re.findall(r"Function (\S+):\s*\n\s*REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", report)
        if not found:
            pytest.skip(f"{library} holds no CUDA kernels: built without nvcc")
        lines += found
    return {name: tuple(map(int, numbers)) for name, *numbers in lines}


@pytest.mark.parametrize("kernel", HOT)
def test_hot_kernels_keep_everything_in_registers(resources, kernel):
    found = {name: use for name, use in resources.items() if kernel in name}
    assert found, f"no kernel is named {kernel}"
    known = {name: next((size for part, size in KNOWN.items() if part in name), 0) for name in found}
    in_memory = {name: use for name, use in found.items() if use[1] > known[name] or use[2]}
    assert not in_memory, f"(registers, stack, local): {in_memory}"
