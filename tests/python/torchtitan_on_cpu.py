"""torchtitan, imported for a CPU. Once for all ranks, by the server that they are forked from: it takes longer than most of their runs."""

import torch

torch._utils._get_available_device_type = lambda: "cpu"
import torchtitan.components.metrics  # noqa: E402
import torchtitan.trainer  # noqa: E402


class Monitor:
    """Of a device that has no memory to watch."""

    device_name, device_capacity = "cpu", 1

    def reset_peak_stats(self):
        pass

    def get_peak_stats(self):
        return torchtitan.components.metrics.DeviceMemStats(0, 0, 0, 0, 0, 0)


torchtitan.components.metrics.build_device_memory_monitor = Monitor
torchtitan.trainer.utils.get_peak_flops = lambda name: 1e12
torchtitan.trainer.dist_utils.set_pg_timeouts = lambda **unused: None
