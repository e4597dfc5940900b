"""The processes of one run part in order."""

import atexit
import gc
import weakref

from torch import distributed


_TRAINERS = weakref.WeakSet()


def leave_process_group_at_exit(trainer) -> None:
    """Has a process of a multi-process run end gloo's threads before Python ends; does nothing in a single process.

    A thread that still lets go of a tensor of the last collective call needs Python for that. When Python has ended by then, the
    thread is ended inside code that may not be left that way, and a process that did all of its work aborts with "terminate called without an
    active exception" and takes the run down with it.

    Args:
        trainer: the `Trainer` whose wrapped model holds the group, and with it the threads, alive.
    """
    if not _TRAINERS:
        atexit.unregister(_leave)
        atexit.register(_leave)
    _TRAINERS.add(trainer)


def _leave() -> None:
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    for trainer in list(_TRAINERS):
        trainer.model_wrapped = trainer.model
        trainer.accelerator.free_memory()
    # the wrapper lies in reference cycles; the last reference to the group waits for its threads to end
    gc.collect()
    distributed.destroy_process_group()
    gc.collect()
