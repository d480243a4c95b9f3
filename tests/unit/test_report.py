"""The page: all that is known is on it, what is not says which command finds it, and no data does harm."""

import dataclasses
from html.parser import HTMLParser
from typing import Any

import pytest

from flywheel.evidence import Estimate, Exploration
from flywheel.found import COMMANDS
from flywheel.measure.page.known import Known
from flywheel.measure.page.parts import alone, sentences
from flywheel.measure.page.people import gain_alone, pace
from flywheel.measure.page.quality import curve_alone
from flywheel.measure.report import PARTS, headline, page
from flywheel.records import Comparison, Interval, Slice
from flywheel.watched import Signal
from tests import known

EVIL = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>"
VOID = {"meta", "br"}
MEASURED = ("curve", "why", "staleness", "network", "offpolicy", "exploration", "gain", "hazards", "watched")


class Reader(HTMLParser):
    """What a page is made of; a tag that is not closed in its place is an error."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)

    @property
    def text(self) -> str:
        return "".join(self.words)


def evil(value: Any) -> Any:
    """A value of the same kind with other text in it wherever there is text."""
    if isinstance(value, str):
        return EVIL
    if isinstance(value, tuple):
        return tuple(evil(v) for v in value)
    if isinstance(value, dict):
        return {f"{EVIL}{n}": v for n, v in enumerate(value.values())}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        closed = {"verdict", "decision", "status", "kind", "estimator", "metric", "action", "region"}
        fields = [f.name for f in dataclasses.fields(value) if f.name not in closed]
        return dataclasses.replace(value, **{name: evil(getattr(value, name)) for name in fields})
    return value


WHOLE = {
    "everything": known.full(),
    "nothing": known.bare(),
    "one generation": known.bare(generations=known.generations(1), champion=1, ledger=known.ledger(9, outcomes=False)),
    "a baseline that serves": known.full(3, champion=0, gain=None),
    "400 generations": known.full(400, ledger=known.ledger(2_800)),
}


@pytest.mark.parametrize("name", WHOLE)
def test_the_page_is_one_well_formed_file_that_needs_nothing_else(name: str) -> None:
    html = page(WHOLE[name])
    read = Reader(html)
    assert len(html.encode()) < 200_000
    assert read.count("h1") == 1
    assert read.count("script") == read.count("link") == read.count("img") == 0
    for needle in ("http:", "https:", "url(", "@import", "//"):
        assert needle not in html.replace("charset=utf-8", "")
    assert "nan" not in read.text.lower().split()


@pytest.mark.parametrize("name", WHOLE)
def test_every_part_has_its_heading_and_a_link(name: str) -> None:
    read = Reader(page(WHOLE[name]))
    sections = [attributes["id"] for tag, attributes in read.tags if tag == "section"]
    links = [attributes["href"] for tag, attributes in read.tags if tag == "a"]
    assert read.count("h2") == len(sections) >= len(PARTS)
    assert links == [f"#{key}" for key in sections]


@pytest.mark.parametrize("name", WHOLE)
def test_every_figure_has_its_sentence_its_drawing_twice_and_its_numbers(name: str) -> None:
    read = Reader(page(WHOLE[name]))
    figures = read.count("figure")
    assert figures == read.count("figcaption") == read.count("details") == read.count("table")
    wide, narrow = ([a for _, a in read.tags if a.get("class") == kind] for kind in ("wide", "narrow"))
    assert len(wide) == len(narrow) == figures


def test_no_data_is_read_as_markup() -> None:
    whole = evil(known.full())
    read = Reader(page(whole))
    assert read.count("script") == read.count("img") == 0
    assert not any(name.startswith("on") for _, attributes in read.tags for name in attributes)
    assert EVIL in read.text


@pytest.mark.parametrize("kind", [kind for kind in COMMANDS if kind is not Exploration], ids=lambda kind: kind.__name__)
def test_what_is_missing_says_which_command_finds_it(kind: type) -> None:
    words = Reader(page(known.full(20, **dict.fromkeys(MEASURED)))).text
    assert COMMANDS[kind].replace("A B", "1 20").replace("N", "20") in words


def test_a_workspace_that_serves_nobody_says_why_it_cannot_tell() -> None:
    words = Reader(page(known.full(20, serves=False, **dict.fromkeys(MEASURED)))).text
    assert "nobody is served by this workspace" in words
    assert "flywheel gain" not in words
    assert "flywheel hazards" not in words


def test_the_top_says_whether_it_turns_how_fast_and_what_binds() -> None:
    words = Reader(page(known.full())).text
    top = words[: words.index("How it turns")]
    for said in ("it amplifies growth", "loop gain", "is what binds", "quality per data", "twice as many in 65 days"):
        assert said in top


def test_growth_is_by_the_period() -> None:
    found = pace(known.gain().periods)
    assert found is not None
    assert found == pytest.approx((0.078, 0.031, 7.0), abs=0.002)


def test_without_a_loop_gain_the_headline_says_how_far_it_came() -> None:
    assert headline(known.bare()) == "The wheel stands still: it has no rows yet."
    assert headline(known.bare(ledger=known.ledger(3))) == "Nothing is learned yet from 1,059 rows."
    assert headline(known.full(3, champion=0, gain=None)) == "3 generations, and the baseline still serves."
    assert headline(known.full(3, champion=2, gain=None)) == "3 generations, and number 2 serves."


def test_the_curve_and_the_generations_say_that_their_exams_differ() -> None:
    for told in (known.full(), known.full(20, curve=None)):
        assert "exam of its own" in Reader(page(told)).text.split("Quality against data")[1][:600]


def test_long_tables_are_cut_and_say_so() -> None:
    words = Reader(page(WHOLE["400 generations"])).text
    assert "350 older ones: flywheel generations" in words
    assert "2,750 more" in words
    assert "The chart shows the newest 60." in words


def test_each_verdict_has_its_mark() -> None:
    html = page(known.full())
    made = known.generations()
    section = html[html.index('id="generations"') : html.index('class="decisions"')]
    for verdict, kind in (("promote", "dot accent"), ("keep", "ring quiet"), ("reject", "cross warn")):
        assert section.count(f'class="{kind}"') == 2 * sum(g.verdict == verdict for g in made)


def test_the_parts_of_a_difference_end_where_the_whole_does() -> None:
    words = Reader(page(known.full())).text
    for part in known.why().parts:
        assert part.name in words
    assert sum(p.effect.value for p in known.why().parts) == pytest.approx(known.why().total.value)


def test_a_slice_that_cannot_be_compared_is_left_out() -> None:
    nan = float("nan")
    odd = Slice("device", "radio", 4, 1, Comparison("auc", nan, nan, Interval(nan, nan, nan, nan, 4, 1)))
    shown, findings = known.slices()
    words = Reader(page(known.full(20, slices=(*shown, odd), findings=findings))).text
    assert "Of 9 slices" in words
    assert "radio" not in words


def test_a_refused_value_says_why_above_its_drawing() -> None:
    refused = dataclasses.replace(known.offpolicy(), refused="The log holds too little evidence: 120 of 500 rows.")
    assert "The log holds too little evidence" in Reader(page(known.full(20, offpolicy=refused))).text


def test_an_interval_without_an_end_is_drawn_to_the_edge() -> None:
    endless = dataclasses.replace(
        known.gain(), users_per_quality=Estimate(2.0, float("-inf"), float("inf")), verdict="not enough evidence"
    )
    Reader(page(known.full(20, gain=endless)))


def test_a_gain_that_evidence_does_not_reach_is_said_and_not_drawn() -> None:
    unknown = dict.fromkeys(
        ("data_per_user", "quality_per_data", "users_per_quality", "gain", "one_turn", "users_added")
    )
    says = ("The holdback has 12 users; it takes 50.",)
    dark = dataclasses.replace(known.gain(), **unknown, verdict="not enough evidence", periods=(), says=says)  # type: ignore[arg-type]
    words = Reader(page(known.full(20, gain=dark))).text
    assert "Nobody can tell yet whether the wheel turns." in words
    assert says[0] in words
    assert "loop gain (" not in words
    assert Reader(alone(gain_alone(dark))).count("figure") == 0


def test_a_notebook_shows_the_same_parts() -> None:
    for part in (curve_alone(known.curve()), gain_alone(known.gain())):
        read = Reader(alone(part))
        assert read.count("svg") >= 1
        assert read.count("style") == 1
        assert part.figures[0].says in sentences(part)


def test_known_is_only_what_was_handed_over() -> None:
    assert {f.name for f in dataclasses.fields(Known)} >= set(MEASURED)


def test_late_rows_that_a_backfill_gave_back_are_no_leak() -> None:
    first, second = known.ledger(2, outcomes=False)
    late = dataclasses.replace(second, collected=second.collected + 5, late=second.late + 5)
    home = dataclasses.replace(first, rows=first.rows + 5, returned=5)
    kept, gone = (page(known.bare(ledger=lines)) for lines in ((home, late), (first, late)))
    assert f"{first.late + second.late:,} late" in kept
    assert f"{first.late + second.late + 5:,} late" in gone


def test_harm_is_said_at_the_top_and_calm_is_not() -> None:
    signal = Signal("against the holdback", "harm", known.around(-0.09, 0.03), 900, "0.16 a row against 0.25")
    says = ("generation 20 does harm. against the holdback: 0.16 a row against 0.25. [monitor] rollback is off",)
    harmed = known.watched(20, signals=(signal,), says=says)
    top = Reader(page(known.full(watched=harmed))).text.split("How it turns")[0]
    assert says[0][1:] in top
    calm = known.full()
    assert calm.watched is not None
    (said,) = calm.watched.says
    whole = Reader(page(calm)).text
    assert said[1:] not in whole.split("How it turns")[0]
    assert all(one.says in whole for one in calm.watched.signals)


def test_a_champion_that_was_moved_since_the_monitor_looked_is_said() -> None:
    told = known.full()
    seen = known.watched(told.champion - 1)
    moved = f"Since then the champion was moved to {told.champion}."
    assert moved in Reader(page(dataclasses.replace(told, watched=seen))).text
    assert moved not in Reader(page(told)).text
