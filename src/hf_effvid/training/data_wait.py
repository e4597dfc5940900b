"""How much of a run is spent waiting for clips: the first thing to know when training is slow."""

import time
from contextlib import contextmanager


class WaitClock:
    """Adds up waiting time; `share` reads and restarts it."""

    def __init__(self, clock=time.perf_counter):
        self.clock = clock
        self.started = None
        self.waited = 0.0

    @contextmanager
    def waiting(self):
        """Counts the time inside the block as waiting."""
        begun = self.clock()
        if self.started is None:
            self.started = begun
        try:
            yield
        finally:
            self.waited += self.clock() - begun

    def share(self):
        """Part of the time since the last call (or the first wait) that was spent waiting, from 0 to 1."""
        now = self.clock()
        elapsed = now - self.started if self.started is not None else 0.0
        share = self.waited / elapsed if elapsed > 0 else 0.0
        self.started, self.waited = now, 0.0
        return share
