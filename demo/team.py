"""Processes that train one network together, each on a core of its own with its part of every batch.

The threads of one process wait for their slowest after each of some ten thousand small sums a step, and on a machine
that does other work too, one of them is always late. These processes wait for each other three times a step."""
import ctypes
import multiprocessing
import os
import signal

import torch

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PATIENCE = 1800  # seconds, for whoever comes last; longer means that a process has died


class Team:
    """`size` processes once start() was called; `rank` tells them apart, 0 is the one that was there before."""

    def __init__(self, size=1):
        self.size, self.rank = size, 0
        self.barrier = multiprocessing.get_context("fork").Barrier(size) if size > 1 else None

    def zeros(self, *shape, device="cpu"):
        """A tensor that all processes see, if it is made before start()."""
        tensor = torch.zeros(*shape, device=device)
        return tensor.share_memory_() if self.size > 1 else tensor

    def start(self):
        if self.size > 1:
            torch.set_num_threads(1)
        for rank in range(1, self.size):
            if not os.fork():
                ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
                self.rank = rank
                break

    def meet(self):
        """Returns when all processes have called it."""
        if self.barrier:
            self.barrier.wait(PATIENCE)
