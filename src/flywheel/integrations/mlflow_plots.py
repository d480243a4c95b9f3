"""The two pictures that go with a generation."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def calibration(models: Mapping[str, Sequence[tuple[float, float, int]]]) -> Figure:
    """Observed against predicted mean per bin, for each model; bins are (predicted, observed, rows)."""
    figure, axes = _figure()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for name, bins in models.items():
        axes.plot([b[0] for b in bins], [b[1] for b in bins], marker="o", markersize=3, label=name)
    axes.set(xlabel="predicted", ylabel="observed", title="Calibration on the exam")
    axes.legend(frameon=False)
    return figure


def learning(points: Sequence[tuple[int, float, float | None]], metric: str) -> Figure:
    """The deciding metric of each generation so far and of the baseline, against training rows."""
    figure, axes = _figure()
    points = sorted(points, key=lambda point: point[0])
    axes.plot([p[0] for p in points], [p[1] for p in points], marker="o", label="model")
    known = [(rows, baseline) for rows, _, baseline in points if baseline is not None]
    axes.plot([p[0] for p in known], [p[1] for p in known], marker=".", color="0.6", label="baseline")
    axes.set(xlabel="training rows", ylabel=metric, title="Quality against data")
    axes.legend(frameon=False)
    return figure


def _figure() -> tuple[Figure, Any]:
    figure = Figure(figsize=(5, 3.6), dpi=80)
    FigureCanvasAgg(figure)  # a figure of our own: pyplot's are global and need a display
    return figure, figure.add_axes((0.14, 0.14, 0.83, 0.77))
