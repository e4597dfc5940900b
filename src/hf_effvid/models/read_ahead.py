# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""An iterator that a thread walks through a bounded number of items ahead, and that ends cleanly whoever ends it."""

import logging
import queue
import threading


logger = logging.getLogger(__name__)

_POLL = 0.1  # seconds after which a full queue looks whether anybody still wants its items
_PATIENCE = 5.0  # seconds that an ended consumer waits for a source that does not answer


def read_ahead(items, size):
    """Yield the items of an iterator, which a thread reads at most `size` ahead.

    What the iterator raises is raised here, behind the items before it. When the consumer stops (closes this generator, raises, or lets go
    of it), the thread ends, and closes the iterator if it can be closed.

    Args:
        items: any iterator; it is used in the thread alone.
        size: items that may wait, at least 1.
    """
    waiting, stop = queue.Queue(maxsize=size), threading.Event()
    thread = threading.Thread(target=_read, args=(items, waiting, stop), name="read_ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error, is_last = waiting.get()
            if error is not None:
                raise error
            if is_last:
                return
            yield item
    finally:
        stop.set()
        thread.join(_PATIENCE)
        if thread.is_alive():
            logger.warning(
                "a source did not answer for %g s after its stream was closed; its thread is left alone", _PATIENCE
            )


def _read(items, waiting, stop):
    def hand_over(entry):
        while not stop.is_set():
            try:
                waiting.put(entry, timeout=_POLL)
                return True
            except queue.Full:
                continue
        return False

    try:
        try:
            for item in items:
                if not hand_over((item, None, False)):
                    return
        finally:
            if hasattr(items, "close"):
                items.close()
        hand_over((None, None, True))
    except BaseException as error:  # whatever it is, the consumer has to learn of it, or it would wait forever
        hand_over((None, error, False))
