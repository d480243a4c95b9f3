"""Charts that are drawn by hand: well-formed at every width, within their bounds, and honest about what they show."""

import re
from collections.abc import Callable
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from flywheel.evidence import Estimate
from flywheel.measure.page.axes import Drawing, apart, log_ticks, ticks
from flywheel.measure.page.lines import Axis, Point, Series, lines, panels
from flywheel.measure.page.markup import join, tag
from flywheel.measure.page.rows import Pair, Row, intervals, pairs
from flywheel.measure.page.stream import Stream, stream

WIDTHS = (736.0, 328.0)
EVIL = '<script>alert("x")</script>'


def curve(name: str = "curve") -> Drawing:
    points = [Point(1_000 * 2**n, 0.6 + 0.02 * n, 0.58 + 0.02 * n, 0.62 + 0.02 * n, says=name) for n in range(8)]
    return lines([Series(name, points)], x=Axis("rows", log=True), y=Axis("AUC"), what=name)


def forest(label: str = "a") -> Drawing:
    rows = [Row(label, Estimate(0.1, -0.1, 0.3), label), Row("b", Estimate(0.2, 0.1, 0.3), "+0.2", base=0.1)]
    return intervals(rows, axis="gain", what=label, rules=((0.0, "none"),))


def dumbbell(label: str = "a") -> Drawing:
    return pairs(
        [Pair(label, 3.0, 5.0, label), Pair("b", 0.0, 0.0, "0 against 0")], ours="with", theirs="without", what="x"
    )


def ledger(name: str = "events") -> Drawing:
    return stream(Stream((name, 1_000), ("rows", 900), [("late", 20), ("duplicate", 80), (name, 0)]), what=name)


DRAWINGS: list[Callable[..., Drawing]] = [curve, forest, dumbbell, ledger]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("drawing", DRAWINGS)
def test_a_drawing_is_well_formed_and_says_what_it_is(drawing: Callable[..., Drawing], width: float) -> None:
    root = ElementTree.fromstring(drawing()(width))
    assert root.attrib["viewBox"].split()[2] == f"{width:g}"
    assert [child.tag for child in root][:2] == ["title", "desc"]
    assert root[0].text
    assert root[1].text


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("drawing", DRAWINGS)
def test_what_data_holds_is_never_markup(drawing: Callable[..., Drawing], width: float) -> None:
    drawn = drawing(EVIL)(width)
    assert "<script" not in drawn
    assert "&lt;script&gt;" in drawn


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_left_out_or_stands_at_the_edge(width: float, value: float) -> None:
    points = [Point(1.0, 1.0, 0.5, value), Point(2.0, value), Point(3.0, 2.0)]
    drawn = [
        lines([Series("a", points)], x=Axis("x"), y=Axis("y"), what="odd")(width),
        intervals([Row("a", Estimate(1.0, value, 2.0), "odd")], axis="x", what="odd")(width),
        intervals([Row("a", Estimate(value, value, value), "odd")], axis="x", what="odd")(width),
        pairs([Pair("a", value, 1.0, "odd")], ours="o", theirs="t", what="odd")(width),
    ]
    for one in drawn:
        assert not re.search(r'[ ="](nan|-?inf)', one), one


def test_nothing_at_all_can_be_drawn() -> None:
    ElementTree.fromstring(lines([], x=Axis("rows", log=True), y=Axis("AUC"), what="nothing")(736))
    ElementTree.fromstring(
        lines([Series("a", [Point(5, 1)])], x=Axis("rows", log=True), y=Axis("AUC"), what="one")(328)
    )
    ElementTree.fromstring(intervals([], axis="gain", what="nothing")(736))
    ElementTree.fromstring(stream(Stream(("events", 0), ("rows", 0), []), what="nothing")(736))


def test_a_higher_value_stands_higher_and_a_later_one_further_right() -> None:
    root = ElementTree.fromstring(curve()(736))
    at = [(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in root.iter("circle")]
    assert len(at) == 8
    assert at == sorted(at)
    assert [y for _, y in at] == sorted((y for _, y in at), reverse=True)


def test_a_leak_is_as_wide_as_it_is_large_and_the_largest_turns_off_first() -> None:
    root = ElementTree.fromstring(ledger()(736))
    (left,) = root.iter("rect")
    leaks = [p.attrib["d"] for p in root.iter("path")]
    assert float(left.attrib["height"]) == pytest.approx(0.9 * 56, abs=0.1)
    said = [t.text for t in root.iter("text")]
    assert said.index("80 duplicate") < said.index("20 late")
    assert len(leaks) == 2


def test_a_whole_number_of_panels_stands_side_by_side_or_below() -> None:
    three = panels([curve(), curve(), curve()])
    widths = [re.findall(r'viewBox="0 0 (\d+)', three(width)) for width in WIDTHS]
    assert widths == [["226"] * 3, ["328"] * 3]


@pytest.mark.parametrize(("low", "high"), [(0.0, 1e-7), (-3.0, 7.0), (0.6412, 0.6502), (1e6, 9e9), (-0.001, 0.0)])
def test_ticks_are_few_and_within(low: float, high: float) -> None:
    found = ticks(low, high, 5)
    assert 2 <= len(found) <= 5
    assert all(low - 1e-9 * abs(high) <= t <= high * (1 + 1e-9) + 1e-15 for t in found)


@pytest.mark.parametrize(("low", "high"), [(900.0, 1e6), (100.0, 180.0), (1.0, 1e12), (5.0, 5.5)])
def test_ticks_by_ratio_are_few_and_within(low: float, high: float) -> None:
    found = log_ticks(low, high, 5)
    assert 2 <= len(found) <= 5
    assert all(low <= t <= high * 1.001 for t in found)


def test_names_are_kept_apart() -> None:
    placed = sorted(apart([50, 51, 52, 300], 16, 280))
    assert all(b - a >= 16 for a, b in pairwise(placed))
    assert placed[-1] <= 280


def test_text_and_attributes_are_escaped_and_markup_is_not() -> None:
    assert tag("p", "<b>", tag("b", "x"), title='"') == '<p title="&quot;">&lt;b&gt;<b>x</b></p>'
    assert join("a&b") == "a&amp;b"
