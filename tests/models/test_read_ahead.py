"""Reading ahead in a thread: bounded, in order, and over when it is over."""

import gc
import threading
import time

import pytest

from hf_effvid.models.read_ahead import read_ahead


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "read_ahead"]


class Source:
    """Counts what was taken; knows whether it was closed."""

    def __init__(self, length=None, fails_at=None):
        self.taken, self.closed, self.length, self.fails_at = 0, False, length, fails_at

    def __iter__(self):
        return self

    def __next__(self):
        if self.taken == self.fails_at:
            raise OSError("the cable was pulled")
        if self.taken == self.length:
            raise StopIteration
        self.taken += 1
        return self.taken

    def close(self):
        self.closed = True


def wait_for(condition):
    until = time.monotonic() + 5
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    assert condition()


def test_every_item_in_order():
    source = Source(length=200)
    assert list(read_ahead(source, 3)) == list(range(1, 201))
    assert source.closed and not threads()
    assert list(read_ahead(iter([]), 1)) == []


def test_a_slow_consumer_holds_the_source():
    source = Source()
    ahead = read_ahead(source, 4)
    assert next(ahead) == 1
    wait_for(lambda: source.taken == 6)  # one taken, four waiting, one in hand
    time.sleep(0.25)
    assert source.taken == 6
    ahead.close()
    assert source.closed and not threads()


def test_errors_come_behind_the_items_before_them():
    source, seen = Source(fails_at=5), []
    with pytest.raises(OSError, match="the cable was pulled"):
        seen.extend(read_ahead(source, 2))
    assert seen == [1, 2, 3, 4, 5] and source.closed and not threads()


def test_a_consumer_that_fails_or_forgets_ends_the_thread():
    source = Source()
    with pytest.raises(ZeroDivisionError):
        [item / 0 for item in read_ahead(source, 2)]
    gc.collect()
    wait_for(lambda: source.closed and not threads())
    source = Source()
    ahead = read_ahead(source, 2)
    next(ahead)
    del ahead
    gc.collect()
    wait_for(lambda: source.closed and not threads())


def test_a_source_that_does_not_answer_does_not_hold_the_consumer(monkeypatch, caplog):
    monkeypatch.setattr("hf_effvid.models.read_ahead._PATIENCE", 0.2)
    release = threading.Event()

    def silent():
        yield 1
        release.wait(20)

    ahead = read_ahead(silent(), 2)
    assert next(ahead) == 1
    begun = time.monotonic()
    ahead.close()
    assert time.monotonic() - begun < 5 and "did not answer" in caplog.text
    release.set()
    wait_for(lambda: not threads())
