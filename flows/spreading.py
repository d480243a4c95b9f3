"""Where the work of windows and fits is done: here, or on the workers that `[compute]` names."""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import cache, partial
from typing import TYPE_CHECKING

from flywheel.errors import ConfigError
from flywheel.learn import parted
from flywheel.learn.matrix import Cache
from flywheel.sections import Compute

if TYPE_CHECKING:
    from flywheel.integrations.dask_cluster import Cluster

_CLUSTER: ContextVar["Callable[[], Cluster] | None"] = ContextVar("cluster", default=None)


@contextmanager
def spreading(compute: Compute) -> Iterator[None]:
    """Have what is done inside done where `compute` says; a cluster is there from the first work on.

    Raises:
        ConfigError: Dask is asked for and not installed.
    """
    if compute.engine == "local":
        yield
        return
    if importlib.util.find_spec("distributed") is None:
        raise ConfigError(
            "Dask is not installed",
            where='[compute] engine = "dask"',
            next="pip install 'flywheel[dask]', or engine = \"local\"",
        )
    with ExitStack() as stack:

        @cache
        def opened() -> "Cluster":
            from flywheel.integrations import dask_cluster  # an extra

            return stack.enter_context(dask_cluster.cluster(compute))

        token = _CLUSTER.set(opened)
        try:
            yield
        finally:
            _CLUSTER.reset(token)


def cluster() -> "Cluster | None":
    """The workers that work is to be spread over; None where it is done here."""
    opened = _CLUSTER.get()
    return None if opened is None else opened()


def build(cache: Cache, windows: list[int], progress: Callable[[int], None] = lambda _: None) -> None:
    """Build the matrices of windows that are missing, and the counters, wherever that is to be done."""
    opened = _CLUSTER.get()
    spread = None if opened is None else lambda work, items: opened().spread(work, items)
    cache.build(windows, progress, None if spread is None else partial(parted.advance, spread))
