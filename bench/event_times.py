"""Times on CUDA, for the scripts of this folder."""

import torch

WARM_UPS = 5  # the first may compile


def elapsed_ms(function, calls):
    """Of one of `calls` in a row, from an idle device."""
    torch.cuda.synchronize()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(calls):
        function()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / calls


def time_ms(function, repeats):
    """Quartiles of single calls between two events, from an idle device."""
    for _ in range(WARM_UPS):
        function()
    times = [elapsed_ms(function, 1) for _ in range(repeats)]
    return torch.quantile(torch.tensor(times), torch.tensor([0.25, 0.5, 0.75])).tolist()


def queued_ms(function, calls):
    """Of calls in a row, where the device waits for no host that is fast enough: the median of three rows."""
    return sorted(elapsed_ms(function, calls) for _ in range(3))[1]
