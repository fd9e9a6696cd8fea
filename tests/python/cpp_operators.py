"""Runs cases with the C++ operator library: python cpp_operators.py LIBRARY CASES RESULTS. A process of its own, because
that library and the Python package register the same operators. CASES holds a list of (operator, q, k, v, grad_out,
options); RESULTS gets a list of [result, ..., dq, dk, dv], or where an operator throws, of its message."""

import sys

import torch


def run(name, q, k, v, grad_out, options):
    q, k, v = (x.detach().requires_grad_(x.is_floating_point()) for x in (q, k, v))
    operator = getattr(torch.ops.lighthouse, name)
    if name == "select":
        return [operator(*torch.ops.lighthouse.token_scores(q, k, v), **options)]
    try:
        results = operator(q, k, v, **options)
    except ValueError as error:
        return str(error).split("\nException raised")[0]
    if name == "token_scores":
        return list(results)
    return [results.detach(), *torch.autograd.grad(results, (q, k, v), grad_out)]


if __name__ == "__main__":
    torch.ops.load_library(sys.argv[1])
    torch.save([run(*case) for case in torch.load(sys.argv[2])], sys.argv[3])
