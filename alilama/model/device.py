"""The device that a model runs on: which one, its free memory, and many launches as one."""

from collections.abc import Callable
from pathlib import Path

import torch


def choose_device() -> str:
    """Returns the fastest device there is: cuda, mps (Apple) or cpu. On CUDA GPUs products in float32 are made in TF32."""
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")  # several times as fast, to three digits
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def free_bytes(device: torch.device) -> int | None:
    """Returns the free memory of a device, with what torch keeps of it for later tensors; None where it is not known."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    meminfo = Path("/proc/meminfo")
    if device.type == "cpu" and meminfo.exists():  # Linux
        return next(int(line.split()[1]) * 1024 for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable"))
    return None


def capture(*steps: Callable[[], None]) -> list[Callable[[], None]]:
    """Captures each step as a CUDA graph, which runs nothing, and returns what launches them.

    The graphs share memory, so that they have to be launched in this order. Raises RuntimeError where a step cannot be
    captured, with everything as it was before.
    """
    stream, graphs = torch.cuda.current_stream(), [torch.cuda.CUDAGraph() for _ in steps]
    side, pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()
    try:
        for graph, step in zip(graphs, steps, strict=True):
            # Other threads, such as NCCL's, may go on meanwhile.
            with torch.cuda.graph(graph, pool=pool, stream=side, capture_error_mode="thread_local"):
                step()
    except RuntimeError:
        # torch leaves the other stream current, and (before 2.12) random numbers marked as captured.
        torch.cuda.set_stream(stream)
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        generator.graphsafe_set_state(generator.clone_state())
        raise
    return [graph.replay for graph in graphs]
