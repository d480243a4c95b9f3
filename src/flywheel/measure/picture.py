"""What the wheel came to, as pictures: quality against data, and worlds side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from flywheel.records import Generation

INK, QUIET, BLUE, RED = "#1f2933", "#9aa5b1", "#1565c0", "#c62828"
MARKS = {  # by verdict: fill, outline, name
    "promote": (BLUE, BLUE, "passed the gate"),
    "keep": ("white", BLUE, "kept back"),
    "reject": (RED, RED, "rejected"),
}


def quality_against_data(made: Sequence[Generation], metric: str, product: str, path: Path) -> None:
    """Draw each generation's metric against its training rows, with the baseline on the same exams, as a PNG."""
    figure = Figure(figsize=(9, 5.2), dpi=130, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.08, 0.13, 0.89, 0.72))
    made = sorted((g for g in made if {metric} <= g.metrics.keys() & g.baseline.keys()), key=lambda g: g.train_rows)
    rows = [g.train_rows for g in made]
    axes.plot(rows, [g.baseline[metric] for g in made], color=QUIET, marker=".", linewidth=1.5, label="baseline")
    axes.plot(rows, [g.metrics[metric] for g in made], color=BLUE, linewidth=2, zorder=2)
    for verdict, (face, edge, label) in MARKS.items():
        chosen = [g for g in made if g.verdict == verdict]
        if chosen:
            x, y = [g.train_rows for g in chosen], [g.metrics[metric] for g in chosen]
            axes.scatter(x, y, s=46, facecolor=face, edgecolor=edge, linewidth=1.8, zorder=3, label=label)
    for g in made:
        at = (g.train_rows, g.metrics[metric])
        axes.annotate(str(g.generation), at, (0, 9), textcoords="offset points", ha="center", fontsize=8, color=INK)
    axes.set_xlabel("training rows", color=INK)
    axes.set_ylabel(metric, color=INK)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e4e7eb")
    figure.legend(frameon=False, loc="upper right", bbox_to_anchor=(0.98, 0.985), ncols=2, fontsize=9)
    figure.text(0.08, 0.94, f"{product}: quality against data", fontsize=14, weight="bold", color=INK)
    figure.text(
        0.08,
        0.885,
        "each point is a generation, examined on rows newer than all it learned from",
        fontsize=10,
        color="#52606d",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


WORLDS = ((BLUE, 2.6), ("#e08a00", 2.0), (QUIET, 2.0))  # the first is the one that it is about


def worlds_apart(worlds: Mapping[str, Mapping[str, Sequence[float]]], said: str, path: Path) -> None:
    """Draw figures of several worlds week by week, one panel a figure, as a PNG.

    Args:
        worlds: by the world's name, by the figure's name, one number a week; shares lie between 0 and 1.
        said: in a line, what tells the worlds apart.
        path: where to.
    """
    figures = list(next(iter(worlds.values())))
    canvas = Figure(figsize=(4.4 * len(figures), 4.4), dpi=130, facecolor="white")
    FigureCanvasAgg(canvas)
    panels = canvas.subplots(1, len(figures))
    canvas.subplots_adjust(left=0.05, right=0.985, top=0.75, bottom=0.14, wspace=0.2)
    for axes, figure in zip(panels, figures, strict=True):
        for (name, lived), (colour, width) in zip(worlds.items(), WORLDS, strict=False):
            numbers = lived[figure]
            axes.plot(range(1, len(numbers) + 1), numbers, color=colour, linewidth=width, label=name)
        shares = max(max(lived[figure]) for lived in worlds.values()) <= 1
        axes.yaxis.set_major_formatter(FuncFormatter(_share if shares else _count))
        axes.set_ylim(bottom=0)
        axes.set_title(figure, loc="left", fontsize=11, color=INK)
        axes.set_xlabel("week", color=INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e4e7eb")
    handles, labels = panels[0].get_legend_handles_labels()
    canvas.legend(handles, labels, frameon=False, loc="upper right", bbox_to_anchor=(0.99, 0.99), ncols=len(worlds))
    canvas.text(0.05, 0.925, "The same people in different worlds", fontsize=14, weight="bold", color=INK)
    canvas.text(0.05, 0.865, said, fontsize=10, color="#52606d")
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(path)


def _count(value: float, _place: int) -> str:
    return f"{value:,.0f}"


def _share(value: float, _place: int) -> str:
    return f"{value:.0%}"
