"""A believable wheel for the tests of the page: every kind of evidence, by hand."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from flywheel.evidence import (
    Aged,
    Curve,
    CurvePoint,
    Estimate,
    Exploration,
    Explored,
    Gain,
    Hazard,
    Hazards,
    Kept,
    Network,
    OffPolicy,
    Part,
    Period,
    PolicyValue,
    Prediction,
    Staleness,
    Why,
)
from flywheel.measure.page.known import Known
from flywheel.records import (
    Comparison,
    Decision,
    Finding,
    Generation,
    Interval,
    LedgerLine,
    Move,
    Outcomes,
    Slice,
)
from flywheel.watched import Signal, Watched

START = datetime(2026, 1, 5, tzinfo=UTC)
AT = datetime(2026, 5, 30, 6, 0, tzinfo=UTC)


def around(value: float, half: float) -> Estimate:
    return Estimate(value, value - half, value + half)


def quality(rows: float) -> float:
    return float(0.79 - 2.1 * rows**-0.33)


def generations(count: int = 20) -> tuple[Generation, ...]:
    rng = np.random.default_rng(3)
    made, champion = [], 0
    for number in range(1, count + 1):
        rows = round(2_500 * number**1.35)
        delta = (0.05 if number == 1 else 0.006) + 0.004 * float(rng.normal())
        se = 0.012 / math.sqrt(number + 2)
        verdict: Decision = "promote" if delta > se else "reject" if delta < -se else "keep"
        reason = {
            "promote": f"AUC .{700 + number} against .{690 + number} (+.010, 95 % −.001 to .011, 2,412 rows)",
            "keep": "not enough evidence: better with probability .61; it takes .80",
            "reject": "slice device=tv: AUC .611 against .652: a loss beyond .02 is shown",
        }[verdict]
        made.append(
            Generation(
                generation=number,
                as_of=START + timedelta(days=7 * number),
                train_rows=rows,
                train_users=300 + 40 * number,
                exam_rows=2_412,
                metrics={"auc": quality(rows) + 0.004 * float(rng.normal()), "log_loss": 0.55},
                baseline={"auc": 0.628 + 0.004 * float(rng.normal()), "log_loss": 0.61},
                difference=Interval(delta, delta - 1.96 * se, delta + 1.96 * se, se, 2_412, 331),
                verdict=verdict,
                reason=reason,
                examined_against=champion,
                trained_windows=("2026-01-05", f"{START + timedelta(days=7 * number - 8):%Y-%m-%d}"),
                exam_windows=(
                    f"{START + timedelta(days=7 * number - 3):%Y-%m-%d}",
                    f"{START + timedelta(days=7 * number - 2):%Y-%m-%d}",
                ),
                dataset="8f14e45fceea167a5a36dedd4bea2543.dir",
                code="c0ffee5",
                config="a1b2c3d4e5f6",
                seed=0,
                run_id=f"run{number}",
                turn_id=f"turn{number}",
                trigger="schedule",
                tags={"recipe": "5d41402abc4b", "rounds": "87"},
            )
        )
        champion = number if verdict == "promote" else champion
    return tuple(made)


def ledger(windows: int = 140, *, outcomes: bool = True) -> tuple[LedgerLine, ...]:
    lines = []
    for n in range(windows):
        start = START + timedelta(days=n)
        rows = round(350 * 1.009 ** min(n, 400))
        leaks = {"duplicate": n % 3, "quarantined": 12 if n == 40 else 0, "unlabelled": 0, "late": n % 7}
        joined = rows // 4
        settled = Outcomes(joined + 9, joined, 3, 1, 1, 4) if outcomes else Outcomes()
        lines.append(
            LedgerLine(
                window=f"{start:%Y-%m-%d}",
                start=start,
                end=start + timedelta(days=1),
                collected=rows + sum(leaks.values()),
                rows=rows,
                events_sha256="",
                quarantine_sha256=None,
                shards=(),
                outcomes=settled,
                **leaks,
            )
        )
    return tuple(lines)


def slices() -> tuple[tuple[Slice, ...], tuple[Finding, ...]]:
    made, findings = [], []
    told = [
        ("device", "phone", 0.008, 0.006, 1_204),
        ("device", "tv", 0.003, 0.008, 806),
        ("device", "tablet", -0.004, 0.014, 402),
        ("user", "new", 0.021, 0.012, 611),
        ("user", "known", 0.002, 0.005, 1_801),
        ("item", "new", -0.031, 0.005, 377),
        ("genres", "drama", 0.006, 0.009, 720),
        ("genres", "comedy", 0.001, 0.010, 655),
        ("genres", "documentary and other long names", -0.010, 0.030, 96),
    ]
    for column, value, delta, half, rows in told:
        d = Interval(delta, delta - half, delta + half, half / 1.96, rows, rows // 7)
        made.append(Slice(column, value, rows, rows // 7, Comparison("auc", 0.74 + delta, 0.74, d)))
        status: Any = "fail" if d.high < -0.02 else "pass" if d.low > -0.02 else "not enough evidence"
        findings.append(Finding(f"slice {column}={value}", status, d.low, -0.02, rows, "by hand"))
    return tuple(made), tuple(findings)


def curve() -> Curve:
    sizes = [round(1_450 * 2 ** (n / 2)) for n in range(13)]
    last = sizes[-1]
    rng = np.random.default_rng(1)
    points = tuple(CurvePoint(n, n // 90, quality(n) + 0.001 * float(rng.normal()), 0.02 * n**-0.25, 5) for n in sizes)
    forecast = tuple(
        Prediction(round(last * k), around(quality(last * k), 0.0022 * k**0.75), "forecast" if k <= 4 else "scenario")
        for k in (1.4, 2, 2.8, 4, 5.7, 8, 10)
    )
    return Curve(
        metric="auc",
        as_of=AT,
        exam_rows=7_236,
        points=points,
        forecast=forecast,
        shape="well-behaved",
        envelope=tuple(p.quality for p in points),
        region="power-law",
        families={"pow3": 0.6, "mmf4": 0.3, "wbl4": 0.1},
        scale=1.1,
        elasticity=around(0.041, 0.008),
        elasticity_of="auc",
        grid=(),
        made_from="hash",
        more_users=around(0.0061, 0.0021),
        more_per_user=around(0.0018, 0.0019),
        says=(
            "More data still helps: another 92,800 rows are forecast to lift AUC from 0.742 to 0.752 (0.749 to 0.755).",
            "To reach 0.760 it takes about 410,000 rows (330,000 to 560,000), of which 93,000 are here.",
        ),
    )


def why() -> Why:
    parts = (
        Part("more data", around(0.0141, 0.003)),
        Part("fresher data", around(0.0062, 0.0035)),
        Part("recipe", around(0.0, 0.0009)),
        Part("an easier exam", around(-0.0023, 0.0028)),
    )
    says = (
        "From generation 3 to 20 AUC rose by 0.018 (0.013 to 0.023); more data made 0.014 of it.",
        "The recipe is the same, so it can have done nothing.",
    )
    return Why(3, 20, "auc", around(0.018, 0.005), parts, (Part("more × fresher", around(0.002, 0.0015)),), says)


def staleness() -> Staleness:
    ages = tuple(Aged(d, around(0.0009 * d**0.9, 0.0012 + 0.00004 * d)) for d in (0, 3, 7, 14, 21, 28, 42, 56))
    kept = (
        Kept(14, 15_200, around(-0.0084, 0.003)),
        Kept(28, 33_900, around(-0.0011, 0.0022)),
        Kept(56, 61_000, around(0.0031, 0.0018)),
        Kept(84, 79_500, around(0.0019, 0.0012)),
    )
    says = (
        "A generation loses 0.008 AUC (0.006 to 0.010) in its first fortnight.",
        "Rows lose half of their worth in 61 days (44 to 97).",
    )
    return Staleness("auc", AT, ages, kept, around(61, 22), 56.0, says)


def network() -> Network:
    joining = tuple(
        CurvePoint(u * 85, u, 0.668 + 0.0118 * math.log2(u / 40), 0.0028, 5) for u in (40, 80, 160, 320, 640)
    )
    says = (
        "For the same 40 users AUC is 0.668 from their own rows and 0.721 from everybody's: +0.053 (0.041 to 0.065).",
    )
    return Network("auc", AT, 0.668, 0.721, around(0.053, 0.012), joining, says)


def offpolicy() -> OffPolicy:
    values = (
        PolicyValue("ips", around(0.341, 0.021)),
        PolicyValue("snips", around(0.338, 0.016)),
        PolicyValue("dr", around(0.336, 0.009)),
    )
    says = ("Generation 20 would have earned 0.336 a slot (0.327 to 0.345), where 0.318 was earned: 6 % more.",)
    return OffPolicy(
        policy="generation 20",
        rows=61_204,
        logged=around(0.318, 0.004),
        values=values,
        gain=around(0.018, 0.009),
        model_alone=0.329,
        effective=8_120,
        largest_weight=0.004,
        unsupported=0.0,
        mean_weight=around(1.002, 0.011),
        refused="",
        says=says,
    )


def exploration() -> Exploration:
    table = tuple(Explored(s, 0.9 * s, 0.004 / math.sqrt(s), 400 * s) for s in (0.02, 0.05, 0.1, 0.2, 0.3, 0.5))
    says = ("To see a gain of 0.010 a slot by the next turn it takes 16 % of slots; today 10 % explore.",)
    return Exploration(0.01, 0.16, 0.1, 10_700, 0.31, 12.0, table, 1, says)


def gain() -> Gain:
    periods = tuple(
        Period(
            START + timedelta(days=7 * n),
            round(300 * 1.078**n),
            round(2_500 * 1.08**n),
            round(520 * 1.095**n),
            300 * 1.031**n,
            2_480 * 1.028**n,
            515 * 1.03**n,
        )
        for n in range(20)
    )
    return Gain(
        as_of=AT,
        turns=20,
        turn_days=7.0,
        data_per_user=around(0.97, 0.05),
        quality_per_data=around(0.11, 0.03),
        users_per_quality=around(2.6, 1.1),
        gain=Estimate(0.277, 0.13, 0.45),
        one_turn=Estimate(0.021, 0.009, 0.035),
        verdict="amplifying",
        binding="quality per data",
        users_added=Estimate(702, 410, 1_004),
        levers=("show more of what new items need", "a feature for the hour of the day", "more users"),
        periods=periods,
        says=(
            "Of every 100 new users 28 come back as more users after one turn (13 to 45): growth is amplified by 1.4.",
            "What binds is how much better more data makes the model.",
        ),
    )


def hazards() -> Hazards:
    found = (
        Hazard("effective catalogue", "items", 74.2, 118.0, Estimate(-43.8, -61.0, -22.4), True,
               "People with the wheel see as if there were 74 items, where the holdback sees 118: alarm."),
        Hazard("exposure Gini", "", 0.61, 0.55, Estimate(0.06, -0.01, 0.13), False, "Exposure is no more unequal."),
        Hazard("new items' first 20 impressions", "hours", 31.0, 27.5, Estimate(3.5, -4.0, 11.0), False,
               "New items wait as long as in the holdback."),
        Hazard("rows the model made for itself", "of rows", 0.42, 0.0, Estimate(0.42, 0.4, 0.44), False,
               "42 % of rows are the model's own sure choice."),
    )  # fmt: skip
    return Hazards(AT, found, ("One of four hazards raises an alarm: the catalogue that people see has shrunk.",))


def watched(champion: int, **changes: Any) -> Watched:
    """What the monitor saw of a champion: no harm, too little to compare it with its predecessor, and late windows."""
    signals = (
        Signal("arms", "well", None, 812, "42 of 812 new users are held back, where 5.0% should be"),
        Signal("against the holdback", "well", around(0.061, 0.03), 2_140,
               "0.3120 a row against 0.2510 in the holdback (+0.0310 to +0.0910)"),
        Signal("against its predecessor", "not enough evidence", None, 12,
               "340 users with the wheel and 12 in the holdback; it takes 25 of each"),
        Signal("windows", "off", None, 3, "3 windows after 2026-05-23 may be closed and are not"),
    )  # fmt: skip
    values: dict[str, Any] = {
        "as_of": AT,
        "champion": champion,
        "previous": champion - 1,
        "since": "2026-05-12",
        "until": "2026-05-23",
        "rows": 18_240,
        "signals": signals,
        "taken_back": None,
        "says": ("windows: 3 windows after 2026-05-23 may be closed and are not",),
    }
    return Watched(**values | changes)


def full(count: int = 20, **changes: Any) -> Known:
    """Everything that a page may show."""
    made = generations(count)
    champion = max((g.generation for g in made if g.verdict == "promote"), default=0)
    shown, findings = slices()
    values: dict[str, Any] = {
        "product": "streaming",
        "metric": "auc",
        "at": AT,
        "generations": made,
        "champion": champion,
        "moves": (Move("promote", champion - 1, champion, "ops", AT, "AUC .742 against .735"),) if champion else (),
        "ledger": ledger(),
        "findings": findings,
        "slices": shown,
        "importance": {"user_mean": 41.0, "item_mean": 33.0, "user_x_genres_mean": 14.0, "hour": 3.0, "device": 1.0},
        "serves": True,
        "curve": curve(),
        "why": why(),
        "staleness": staleness(),
        "network": network(),
        "offpolicy": offpolicy(),
        "exploration": exploration(),
        "gain": gain(),
        "hazards": hazards(),
        "watched": watched(champion),
    }
    return Known(**values | changes)


def bare(**changes: Any) -> Known:
    """A workspace in which nothing has happened."""
    return Known("shop", "auc", AT, **changes)
