"""How a stage tells a person how far it is: whoever wants to know listens, and flows need not know who."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[str, int, int], None]
_LISTENER: ContextVar[Listener | None] = ContextVar("listener", default=None)


def tell(stage: str, done: int, total: int = 0) -> None:
    """Say that `done` of `total` units of a stage are done; a total of 0 is not known."""
    listener = _LISTENER.get()
    if listener is not None:
        listener(stage, done, total)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Have `listener` told of everything that is done inside."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)
