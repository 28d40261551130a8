"""The device that a model runs on: which one, its free memory, and many launches as one."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import torch

CAPTURE_ERROR_MODE = "thread_local"  # other threads, such as NCCL's, may go on while one captures


def choose_device() -> str:
    """Returns the fastest device there is: cuda, mps (Apple) or cpu. On CUDA GPUs products in float32 are made in TF32."""
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")  # several times as fast, to three digits
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def free_bytes(device: torch.device) -> int | None:
    """Returns the free memory of a device, without what torch keeps of it; None where it is not known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
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
            with torch.cuda.graph(graph, pool=pool, stream=side, capture_error_mode=CAPTURE_ERROR_MODE):
                step()
    except RuntimeError:
        end_failed_capture(stream, pool)
        raise
    return [graph.replay for graph in graphs]


def end_failed_capture(stream: torch.cuda.Stream, pool: tuple[int, int]):
    """Puts right what torch leaves behind: the stream, and before 2.13 allocator and random numbers that seem captured."""
    torch.cuda.set_stream(stream)
    with contextlib.suppress(RuntimeError):  # where the allocator has ended it
        torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)
    # One that works ends it for the random numbers.
    with torch.cuda.graph(torch.cuda.CUDAGraph(), capture_error_mode=CAPTURE_ERROR_MODE):
        torch.zeros((), device="cuda")
