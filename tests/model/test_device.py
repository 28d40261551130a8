"""The device: what there is, what is free of it, and steps that are launched as one."""

import os
import sys

import pytest
import torch

from alilama.model import device
from alilama.model.device import capture, choose_device, free_bytes


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu"), (True, False, "cuda")]
)
def test_the_fastest_device_is_chosen_and_only_a_gpu_multiplies_in_tf32(cuda, mps, expected, monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", asked.append)
    assert choose_device() == expected
    assert asked == (["high"] if cuda else [])


@pytest.mark.skipif(sys.platform != "linux", reason="Linux says how much memory is free")
def test_free_memory_is_below_that_of_the_machine():
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert total / 1000 < free_bytes(torch.device("cpu")) < total


def test_free_memory_of_another_device_is_not_known():
    assert free_bytes(torch.device("meta")) is None


class Graphs:
    """What `capture` uses of torch.cuda, which notes what happens; the step number `failing` cannot be captured."""

    def __init__(self, failing):
        self.events, self.failing, self.captured = [], failing, 0
        self.current = "default"

    def graph(self, graph, **options):
        owner = self

        class Context:
            def __enter__(self):
                owner.current = "side"

            def __exit__(self, *error):
                owner.captured += 1
                if owner.captured == owner.failing:  # as torch does: before it leaves the stream
                    raise RuntimeError("operation failed due to a previous error during capture")
                owner.current = "default"

        self.events.append(options.get("capture_error_mode"))
        return Context()


@pytest.fixture
def graphs(monkeypatch, request):
    made = Graphs(getattr(request, "param", None))
    monkeypatch.setattr(torch.cuda, "graph", made.graph)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: type("Graph", (), {"replay": made.events.append}))
    monkeypatch.setattr(torch.cuda, "Stream", lambda: "side")
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: made.current)
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: setattr(made, "current", stream))
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", lambda *of: made.events.append(of), raising=False)
    monkeypatch.setattr(device.torch, "zeros", lambda *size, **options: made.events.append("an operation"))
    return made


def test_each_step_is_captured_once_and_launched_by_its_graph(graphs):
    called = []
    launches = capture(lambda: called.append(1), lambda: called.append(2))
    assert called == [1, 2] and len(launches) == 2
    assert graphs.events == ["thread_local"] * 2 and graphs.current == "default"


@pytest.mark.parametrize("graphs", [1, 2], indirect=True)
def test_a_capture_that_fails_ends_for_the_stream_the_allocator_and_the_random_numbers(graphs):
    with pytest.raises(RuntimeError, match="during capture"):
        capture(lambda: None, lambda: None)
    assert graphs.current == "default"
    assert graphs.events[graphs.failing :] == [(0, (0, 1)), "thread_local", "an operation"]


@pytest.mark.cuda
def test_graphs_are_launched_in_order_and_see_what_changed():
    numbers = torch.arange(4.0, device="cuda")
    total = torch.zeros((), device="cuda")

    def double():
        numbers.mul_(2)

    def add_up():
        total.copy_(numbers.sum())

    launches = capture(double, add_up)
    assert numbers.tolist() == [0, 1, 2, 3]  # capturing ran nothing
    for _ in range(2):
        for launch in launches:
            launch()
    assert total.item() == 24
