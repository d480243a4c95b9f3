import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flywheel.config import parse
from flywheel.errors import ConfigError
from flywheel.integrations import gx_suites
from flywheel.integrations.gx_profile import profile_suites
from flywheel.records import SuiteResult

V = "expect_column_values_to_"


@pytest.fixture
def suite(tmp_path: Path):
    def made(*expectations: dict) -> gx_suites.Suite:
        path = tmp_path / "events.json"
        path.write_text(json.dumps({"name": "events", "expectations": list(expectations)}))
        return gx_suites.read(path)

    return made


def e(kind: str, severity: str | None = None, **kwargs: object) -> dict:
    return {"type": kind, "kwargs": kwargs} | ({"severity": severity} if severity else {})


def frame() -> pd.DataFrame:
    """Four rows under an index that is no position."""
    return pd.DataFrame(
        {
            "weight": [1.0, 101.0, np.nan, -5.0],
            "label": [0.0, 1.0, 2.0, 1.0],
            "user": pd.Categorical(["u1", "u2", None, "u1"]),
            "genres": [np.array(["a", "b"]), ["c"], None, np.array([], dtype=object)],
            "ts": pd.date_range("2024-01-01", periods=4, tz="UTC"),
        },
        index=[10, 10, "z", 3],
    )


BETWEEN = e(V + "be_between", column="weight", min_value=0, max_value=100)


def test_every_bad_row_is_named_by_position_with_each_reason(suite):
    got = gx_suites.run(
        suite(BETWEEN, e(V + "be_in_set", column="label", value_set=[0, 1]), e(V + "not_be_null", column="weight")),
        frame(),
    )
    assert got == SuiteResult(
        {
            1: ("weight must be between 0 and 100",),
            2: ("label must be one of 0, 1", "weight must not be null"),
            3: ("weight must be between 0 and 100",),
        },
        (),
    )


def test_reasons_stand_in_the_order_of_the_file(suite):
    one, two = e(V + "be_between", column="weight", max_value=0), e(V + "be_between", column="weight", max_value=50)
    assert gx_suites.run(suite(one, two), frame()).bad_rows[1] == (
        "weight must be at most 0",
        "weight must be at most 50",
    )
    assert gx_suites.run(suite(two, one), frame()).bad_rows[1] == (
        "weight must be at most 50",
        "weight must be at most 0",
    )


@pytest.mark.parametrize("mostly", [1, 1.0])
def test_mostly_one_is_a_judgement_of_rows(suite, mostly):
    assert set(
        gx_suites.run(suite(BETWEEN | {"kwargs": BETWEEN["kwargs"] | {"mostly": mostly}}), frame()).bad_rows
    ) == {1, 3}


def test_a_share_that_is_met_quarantines_nothing(suite):
    got = gx_suites.run(suite(e(V + "not_be_null", column="user", mostly=0.7)), frame())
    assert got == SuiteResult({}, ())


@pytest.mark.parametrize(
    ("severity", "critical"), [(None, True), ("critical", True), ("warning", False), ("info", False)]
)
def test_a_share_that_is_missed_is_a_failure_of_the_window(suite, severity, critical):
    got = gx_suites.run(suite(e(V + "not_be_null", severity, column="user", mostly=0.9)), frame())
    words = "user must not be null in at least 90 % of rows; it is so in 75 %, and not in 1 of 4 rows"
    assert got == SuiteResult({}, ((words, critical),))


@pytest.mark.parametrize(
    ("expectation", "words"),
    [
        (
            e("expect_column_mean_to_be_between", column="label", max_value=0.5),
            "the mean of label must be at most 0.5; observed: 1",
        ),
        (
            e("expect_table_row_count_to_be_between", min_value=9),
            "the table's row count must be at least 9; observed: 4",
        ),
        (e("expect_table_row_count_to_equal", value=3), "the table's row count must equal (value 3); observed: 4"),
        (e("expect_column_to_exist", column="item"), "item must exist; it is not so"),
        (e(V + "be_of_type", column="label", type_="int"), "label must be of type (type_ int); observed: float64"),
    ],
)
def test_aggregates_and_the_table_are_failures_of_the_window_with_the_number(suite, expectation, words):
    assert gx_suites.run(suite(expectation), frame()) == SuiteResult({}, ((words, True),))


def test_rows_that_only_warn_stay(suite):
    got = gx_suites.run(suite(BETWEEN | {"severity": "warning"}), frame())
    words = "weight must be between 0 and 100; it is so in 33.33 %, and not in 2 of 4 rows"
    assert got == SuiteResult({}, ((words, False),))


@pytest.mark.parametrize("severity", ["critical", "info"])
@pytest.mark.parametrize(
    ("expectation", "gist"),
    [
        (e(V + "not_be_null", column="nope"), 'The column "nope" in BatchData does not exist'),
        (e("expect_column_mean_to_be_between", column="nope", min_value=0), 'The column "nope"'),
        (e(V + "be_between", column="user", min_value=1), "must either be None or of the same type"),
        (e("unexpected_rows_expectation", unexpected_rows_query="select * from {batch}"), "could not be computed"),
    ],
)
def test_what_cannot_be_computed_blocks_whatever_its_severity(suite, expectation, gist, severity):
    got = gx_suites.run(suite(expectation | {"severity": severity}, BETWEEN), frame())
    ((words, critical),) = got.failures
    assert gist in words
    assert critical
    assert set(got.bad_rows) == {1, 3}


def test_pairs_and_compounds_judge_rows_too(suite):
    pair = e(
        "expect_column_pair_values_a_to_be_greater_than_b",
        column_A="weight",
        column_B="label",
        ignore_row_if="either_value_is_missing",
    )
    unique = e("expect_compound_columns_to_be_unique", column_list=["label", "ts"])
    assert gx_suites.run(suite(pair, unique), frame()).bad_rows == {3: ("weight must be greater than label",)}
    again = pd.concat([frame(), frame().iloc[:1]])
    assert set(gx_suites.run(suite(unique), again).bad_rows) == {0, 4}


def test_a_row_condition_keeps_positions(suite):
    where = {"type": "comparison", "column": {"name": "label"}, "operator": "==", "parameter": 1}
    got = gx_suites.run(suite(e(V + "be_between", column="weight", min_value=0, row_condition=where)), frame())
    assert list(got.bad_rows) == [3]


def test_lists_categories_and_times_are_judged(suite):
    got = gx_suites.run(
        suite(
            e(V + "not_be_null", column="genres"),
            e(V + "be_in_set", column="user", value_set=["u1"]),
            e(V + "be_between", column="ts", max_value="2024-01-03T12:00:00+00:00"),
        ),
        frame(),
    )
    assert set(got.bad_rows) == {1, 2, 3}
    assert got.failures == ()


def test_of_an_empty_frame_only_the_number_of_rows_is_judged(suite):
    some = (
        BETWEEN,
        e("expect_column_mean_to_be_between", column="label", min_value=0),
        e(V + "not_be_null", column="nope"),
    )
    assert gx_suites.run(suite(*some), frame().iloc[:0]) == SuiteResult({}, ())
    got = gx_suites.run(suite(*some, e("expect_table_row_count_to_be_between", min_value=1)), frame().iloc[:0])
    assert got == SuiteResult({}, (("the table's row count must be at least 1; observed: 0", True),))


def test_nothing_is_printed_and_the_frame_is_left_alone(suite, capfd):
    given = frame()
    gx_suites.run(suite(BETWEEN), given)
    assert capfd.readouterr() == ("", "")
    pd.testing.assert_frame_equal(given, frame())


def test_a_suite_is_built_once_and_again_when_its_file_changed(suite):
    assert suite(BETWEEN) is suite(BETWEEN)
    assert gx_suites.run(suite(), frame()) == SuiteResult({}, ())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"name": "x", ', "events.json is not valid JSON"),
        ("[]", "events.json is not a suite"),
        ('{"name": "x", "expectation": []}', "events.json is not a suite"),
        ('{"expectations": [], "expectatoins": []}', "unknown key expectatoins.*nearest known key is expectations"),
        ('{"expectations": [3]}', "expectation 1 of events.json is not one"),
        ('{"expectations": [{"type": "expect_table_row_count_to_equal", "kwargs": 3}]}', "kwargs are not an object"),
    ],
)
def test_a_file_that_is_no_suite_is_refused(tmp_path, text, words):
    path = tmp_path / "events.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"(?s){words}") as raised:
        gx_suites.read(path)
    assert str(path) in str(raised.value)
    assert len(str(raised.value).splitlines()) <= 6


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (e("expect_colum_values_to_be_between", column="a"), f"unknown type.*nearest known type is {V}be_between"),
        (e(V + "be_between", column="a", min_val=3), "unknown key min_val.*nearest known key is min_value"),
        (e(V + "be_between", min_value=3), "column field required"),
        (e(V + "be_between", column="a"), "min_value and max_value cannot both be None"),
        (e(V + "be_between", column="a", min_value=0, mostly=3), "mostly ensure this value is less than or equal to 1"),
        (e(V + "not_be_null", "fatal", column="a"), "severity is 'fatal'; known are critical, warning and info"),
        (e(V + "not_be_null", column="a") | {"mostly": 0.5}, "unknown key mostly"),
    ],
)
def test_a_wrong_expectation_is_refused_by_its_number(suite, wrong, words):
    with pytest.raises(ConfigError, match=f"(?s)expectation 2 of events.json.*{words}") as raised:
        suite(BETWEEN, wrong)
    assert len(str(raised.value).splitlines()) <= 6


def test_a_missing_suite_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no suite rows\.json"):
        gx_suites.read(tmp_path / "rows.json")


@pytest.mark.slow
def test_data_docs_are_pages_of_the_chosen_windows(suite, tmp_path, capfd):
    built = suite(BETWEEN, e(V + "be_in_set", column="genres", value_set=["a"]))
    page = gx_suites.data_docs(tmp_path / "docs", [built], {"2024-01-01": frame(), "2024-01-08": frame()})
    assert "events" in page.read_text()
    rendered = [
        p.relative_to(tmp_path / "docs" / "validations").parts for p in page.parent.rglob("validations/**/*.html")
    ]
    assert sorted(parts[:2] for parts in rendered) == [("events", "2024-01-01"), ("events", "2024-01-08")]
    assert gx_suites.run(built, frame()).bad_rows
    assert capfd.readouterr().out == ""


def config(**contract: object):
    return parse(
        {
            "product": {"name": "x"},
            "source": {"url": "x.csv"},
            "contract": {"timestamp": "t", "label": "l", "user": "u", "item": "i", "propensity": "p"} | contract,
            "windows": {"every": "7d"},
        }
    )


def sample(n: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "event_id": [f"e{i}" for i in range(n)],
            "ts": pd.date_range("2024-01-01", periods=n, freq="min", tz="UTC"),
            "label": rng.integers(0, 2, n).astype(float),
            "user": pd.Categorical(rng.choice(["a", "b"], n)),
            "item": pd.Categorical(np.where(rng.random(n) < 0.1, None, "i"), categories=["i"]),
            "propensity": rng.uniform(0.1, 1, n),
            "weight": rng.uniform(0, 100, n),
            "genres": [["x", "y"]] * n,
            "country": pd.Categorical(rng.choice(["de", "fr"], n)),
        }
    )


CONTEXT = {"numeric": ["weight"], "categorical": ["country"], "lists": {"genres": "|"}}


def write(folder: Path, suites: dict[str, dict]) -> list[gx_suites.Suite]:
    for name, values in suites.items():
        (folder / name).write_text(json.dumps(values))
    return [gx_suites.read(folder / name) for name in suites]


@pytest.mark.parametrize("kind", ["binary", "number"])
@pytest.mark.parametrize("n", [0, 1, 3, 500])
def test_profiled_suites_can_be_read_and_their_own_sample_meets_them(tmp_path, n, kind):
    suites = profile_suites(sample(n), config(kind=kind, **CONTEXT))
    assert list(suites) == ["events.json", "rows.json", "features.json"]
    for built in write(tmp_path, suites):
        assert gx_suites.run(built, sample(n)) == SuiteResult({}, ())
    for values in suites.values():
        assert all(expectation["meta"]["notes"] for expectation in values["expectations"])


def test_profiled_suites_come_back_from_great_expectations_as_they_went_in(tmp_path):
    suites = profile_suites(sample(500), config(**CONTEXT))
    for built, values in zip(write(tmp_path, suites), suites.values(), strict=True):
        stored = built.built.to_json_dict()["expectations"]
        assert [(x["type"], x["kwargs"], x["severity"], x["meta"]) for x in stored] == [
            (x["type"], x["kwargs"], x["severity"], x["meta"]) for x in values["expectations"]
        ]


def test_profiled_suites_catch_what_cannot_be_and_warn_of_what_was_not_seen(tmp_path):
    events, rows, _ = write(tmp_path, profile_suites(sample(500), config(**CONTEXT)))
    other = sample(500, seed=1)
    other.loc[3, "label"] = 7
    other.loc[4, "propensity"] = 0
    other.loc[5, "user"] = None
    other.loc[6, "weight"] = np.inf
    other.loc[7, "weight"] = 5_000
    got = gx_suites.run(events, other)
    assert sorted(got.bad_rows) == [3, 4, 5, 6]
    assert [(words.partition(";")[0], critical) for words, critical in got.failures] == [
        ("weight must be between -98.9 and 199", False)
    ]
    other["label"] = 1.0
    other["country"] = None
    (mean, warns), (share, blocks) = gx_suites.run(rows, other).failures
    assert ("mean of label" in mean, warns, "country must not be null" in share, blocks) == (True, False, True, True)


OULAD = Path(__file__).parents[3] / "shared" / "data" / "oulad-assessments" / "events.csv.gz"


@pytest.mark.real_data
@pytest.mark.skipif(not OULAD.exists(), reason="needs ../shared/data")
def test_suites_profiled_from_the_head_of_a_real_log_quarantine_none_of_the_rest(tmp_path):
    log = pd.read_csv(OULAD, parse_dates=["ts", "label_ts"], dtype={"event_id": "str"})
    log = log.rename(columns={"user_id": "user", "item_id": "item"}).astype({"user": "category", "item": "category"})
    numeric = ["weight", "days_late", "day_in_course", "num_of_prev_attempts", "studied_credits"]
    contract = config(propensity=None, numeric=numeric, categorical=["module", "presentation", "assessment_type"])
    events, rows, _ = write(tmp_path, profile_suites(log.head(5_000), contract))
    of_rows, of_window = gx_suites.run(events, log), gx_suites.run(rows, log)
    assert of_rows.bad_rows == of_window.bad_rows == {}
    assert not any(critical for _, critical in (*of_rows.failures, *of_window.failures))
