"""Runs cases with the C++ operator library: python cpp_operators.py LIBRARY CASES RESULTS. A process of its own, because
that library and the Python package register the same operators. CASES holds a list of (operator, q, k, v, grad_out,
options), with "compiled": True among the options for a traced graph; RESULTS gets a list of [result, ..., dq, dk, dv], or
where an operator throws, of its message."""

import subprocess
import sys

import pytest
import torch


def run(name, q, k, v, grad_out, options):
    q, k, v = (x.detach().requires_grad_(x.is_floating_point()) for x in (q, k, v))
    operator = getattr(torch.ops.lighthouse, name)
    if options.pop("compiled", False):
        torch.compiler.reset()
        operator = torch.compile(operator, fullgraph=True, backend="aot_eager")
    if name == "select":
        return [operator(*torch.ops.lighthouse.token_scores(q, k, v), **options)]
    try:
        results = operator(q, k, v, **options)
    except ValueError as error:
        return str(error).split("\nException raised")[0]
    if name == "token_scores":
        return list(results)
    return [results.detach(), *torch.autograd.grad(results, (q, k, v), grad_out)]


def run_cpp_operators(build_folder, folder, cases):
    """The results of cases by the library of the build, in that process; a skip where it is not built."""
    library = build_folder / "src" / "ops" / "liblighthouse_ops.so"
    if not library.exists():
        pytest.skip(f"{library} is not built")
    torch.save(cases, folder / "cases.pt")
    subprocess.run([sys.executable, __file__, library, folder / "cases.pt", folder / "results.pt"], check=True, timeout=300)
    return torch.load(folder / "results.pt")


if __name__ == "__main__":
    torch.ops.load_library(sys.argv[1])
    torch.save([run(*case) for case in torch.load(sys.argv[2])], sys.argv[3])
