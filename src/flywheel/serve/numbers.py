"""What the door counts, for Prometheus: plain integers in the loop's thread, put into words when they are asked for."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from flywheel.events import Decision

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)  # s
TEXT = b"text/plain; version=0.0.4; charset=utf-8"


class Numbers(Collector):
    """Counts since the server began; `gauges` are read when they are asked for: (name, what it is) → value."""

    def __init__(self, gauges: Mapping[tuple[str, str], Callable[[], float]]) -> None:
        self._gauges = gauges
        self._requests: Counter[tuple[str, str]] = Counter()
        self._seconds: dict[str, list[float]] = {}  # per route the counts of each bucket, then the sum
        self._decisions: Counter[tuple[str, str]] = Counter()
        self._slots: Counter[tuple[str]] = Counter()
        self._events: Counter[tuple[str, str]] = Counter()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests[route, str(status)] += 1
        times = self._seconds.get(route)
        if times is None:
            times = self._seconds[route] = [0.0] * (len(BOUNDS) + 2)
        times[bisect_left(BOUNDS, seconds)] += 1
        times[-1] += seconds

    def decided(self, decision: Decision) -> None:
        """Count a decision and its slots."""
        self._decisions[str(decision.generation), decision.arm] += 1
        explored = sum(shown.explored for shown in decision.shown)
        self._slots[("true",)] += explored
        self._slots[("false",)] += len(decision.shown) - explored

    def taken(self, kind: str, result: str, count: int) -> None:
        """Count outcomes or rows that were accepted, duplicate or refused."""
        self._events[kind, result] += count

    def page(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """The families, as Prometheus names them."""
        for name, text, labels, counts in (
            ("flywheel_requests", "Requests answered", ("route", "status"), self._requests),
            ("flywheel_decisions", "Decisions on disk", ("generation", "arm"), self._decisions),
            ("flywheel_slots", "Slots filled, by whether the item was drawn", ("explored",), self._slots),
            ("flywheel_events", "Outcomes and rows that came in", ("kind", "result"), self._events),
        ):
            family = CounterMetricFamily(name, text, labels=labels)
            for values, count in counts.items():
                family.add_metric(values, count)
            yield family
        yield self._latency()
        for (name, text), value in self._gauges.items():
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            yield kind(name, text, value())

    def _latency(self) -> Metric:
        family = HistogramMetricFamily("flywheel_request_seconds", "From head to answer", labels=("route",))
        for route, times in self._seconds.items():
            buckets, so_far = [], 0.0
            for bound, count in zip((*map(str, BOUNDS), "+Inf"), times, strict=False):
                so_far += count
                buckets.append((bound, so_far))
            family.add_metric((route,), buckets, times[-1])
        return family
