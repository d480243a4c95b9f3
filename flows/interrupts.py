"""When a command may be stopped: not while a C library calls back into Python, which cannot hand an exception on."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def deferred() -> Iterator[Callable[[], None]]:
    """Hold SIGINT and SIGTERM back inside, until what is yielded is called, or the end.

    An exception that is raised within XGBoost's reading of its rows is dropped there, and XGBoost goes on with rows
    that it was never given, up to a segmentation fault. Python handles signals in the main thread only, so in any
    other there is nothing to hold back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    waiting: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: waiting.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }

    def stop_if_asked() -> None:
        if waiting:
            _restore(before)
            signal.raise_signal(waiting.pop())

    try:
        yield stop_if_asked
    finally:
        _restore(before)
    stop_if_asked()


def _restore(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
