"""The processes of one run part in order."""

import atexit
import functools

from torch import distributed


@functools.cache
def leave_process_group_at_exit() -> None:
    """Has a process of a multi-process run close its connections before Python ends; does nothing in a single process.

    Without it the threads of gloo are still running when their library is unloaded, and a process that did all of its work
    now and then ends with "terminate called without an active exception" and takes the run down with it.
    """
    atexit.register(_leave)


def _leave() -> None:
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
