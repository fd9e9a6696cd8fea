"""Times on CUDA, for the scripts of this folder."""

import torch

WARM_UPS = 5  # the first may compile


def time_ms(function, repeats):
    """Quartiles of single calls between two events, from an idle device."""
    for _ in range(WARM_UPS):
        function()
    times = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        function()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return torch.quantile(torch.tensor(times), torch.tensor([0.25, 0.5, 0.75])).tolist()


def queued_ms(function, calls):
    """Of one of `calls` in a row, the median of three rows: the device waits for no host that is fast enough."""
    times = []
    for _ in range(3):
        torch.cuda.synchronize()
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(calls):
            function()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / calls)
    return sorted(times)[1]
