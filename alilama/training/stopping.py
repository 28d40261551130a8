"""Ctrl-C, SIGTERM and a terminal that is closed end a run after the step it is in, with everything saved."""

import os
import signal
import sys
from collections.abc import Callable

import torch
import torch.distributed as dist

from alilama.model.device import choose_device


class StopRequest:
    """Whether somebody asked the run to stop; the second time ends it at once. `on_request` is called the first time."""

    def __init__(self, on_request: Callable[[], None]):
        self._is_made, self._on_request = False, on_request
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is None or (name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN):  # which nohup asks for
                continue
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: object):
        self._is_made = True
        signal.signal(number, signal.default_int_handler)
        if number == getattr(signal, "SIGHUP", None):  # nobody can be told any more
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for stream in (sys.stdout, sys.stderr):
                if stream is not None and stream.isatty():
                    os.dup2(nowhere, stream.fileno())
        self._on_request()

    def is_made(self, step: int, log_interval: int, world_size: int) -> bool:
        """Whether it is; several processes ask each other, at every row of the log, and stop at the same step."""
        if world_size == 1:
            return self._is_made
        if step % log_interval:
            return False
        any_made = torch.tensor(float(self._is_made), device=choose_device())
        dist.all_reduce(any_made)
        return any_made.item() > 0
