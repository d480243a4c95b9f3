from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from flywheel.errors import ConfigError
from flywheel.infer import Proposal, describe, infer

N = 2000
START = datetime(2024, 1, 1, tzinfo=UTC)


def table(rows: int = N, *, drop: tuple[str, ...] = (), **extra: Any) -> pa.Table:
    """A log as a CSV has it: 100 days, users, items, a 0/1 label, genres, a device; `extra` replaces or adds."""
    random = np.random.default_rng(7)
    step = timedelta(days=100) / rows
    columns: dict[str, Any] = {
        "ts": [(START + k * step).isoformat() for k in range(rows)],
        "user_id": [f"u{k}" for k in random.integers(0, 60, rows)],
        "item_id": [f"i{k}" for k in random.integers(0, 40, rows)],
        "label": [str(k) for k in random.integers(0, 2, rows)],
        "genres": random.choice(["Action|Comedy", "Drama", "Comedy|Drama", "Action"], rows).tolist(),
        "device": random.choice(["tv", "phone"], rows).tolist(),
        "age": [str(k) for k in random.integers(18, 80, rows)],
    } | extra
    return pa.table({name: values for name, values in columns.items() if name not in drop})


def propose(sample: pa.Table, **given: Any) -> Proposal:
    return infer(sample, name="shop", url="log.csv", **given)


def role_of(proposal: Proposal, column: str) -> tuple[str, str]:
    return next((role.role, role.type) for role in proposal.mapping if role.column == column)


def refusal(sample: pa.Table, **given: Any) -> str:
    with pytest.raises(ConfigError) as error:
        propose(sample, **given)
    assert len(str(error.value).splitlines()) <= 6
    return str(error.value)


def test_roles_and_types_are_found_by_name_and_value() -> None:
    contract = propose(table()).config.contract
    assert (contract.timestamp, contract.user, contract.item, contract.label) == ("ts", "user_id", "item_id", "label")
    assert contract.numeric == ("age",)
    assert contract.categorical == ("device",)
    assert contract.lists == {"genres": "|"}
    assert contract.outcomes == ()


@pytest.mark.parametrize(
    ("names", "user", "item"),
    [
        ({"userId": "user_id", "movieId": "item_id"}, "userId", "movieId"),
        ({"customer_id": "user_id", "sku": "item_id"}, "customer_id", "sku"),
        ({"visitor": "user_id", "article": "item_id"}, "visitor", "article"),
        ({"who": "user_id", "what": "item_id"}, None, None),
    ],
)
def test_users_and_items_go_by_many_names(names: dict[str, str], user: str | None, item: str | None) -> None:
    known = {old: new for new, old in names.items()}
    sample = table().rename_columns([known.get(name, name) for name in table().column_names])
    contract = propose(sample).config.contract
    assert (contract.user, contract.item) == (user, item)


def test_every_column_is_mapped_once_and_five_rows_are_shown() -> None:
    sample = table()
    proposal = propose(sample)
    assert sorted(role.column for role in proposal.mapping) == sorted(sample.column_names)
    assert all(role.why for role in proposal.mapping)
    assert len(proposal.examples) == 5
    assert proposal.examples[0]["timestamp"] == "2024-01-01T00:00:00Z"
    assert set(proposal.examples[0]) == {"timestamp", "label", "user", "item", "genres", "device", "age"}
    assert " + " in "".join(
        example["genres"] for example in propose(table(genres=["A|B", "B", "A", "A|B"] * 500)).examples
    )


def test_the_text_names_every_column() -> None:
    text = describe(propose(table()))
    assert all(name in text for name in table().column_names)
    assert "row 5: " in text


def test_what_is_given_wins() -> None:
    sample = table(other=table()["ts"], viewer_no=[str(k % 9) for k in range(N)])
    contract = propose(
        sample, timestamp="other", user="viewer_no", label="age >= 40", outcomes=("device", "label")
    ).config.contract
    assert (contract.timestamp, contract.user, contract.label) == ("other", "viewer_no", "age >= 40")
    assert contract.outcomes == ("device",)  # a column called label would be taken for the role
    assert "age" not in contract.context


@pytest.mark.parametrize(
    "role", ["timestamp", "label", "user", "item", "request", "event_id", "label_time", "position", "propensity"]
)
def test_a_given_column_that_is_not_there_is_refused_with_the_nearest(role: str) -> None:
    said = refusal(table(), **{role: "usr_id"})
    assert "no column 'usr_id'" in said
    assert f"--{role.replace('_', '-')} user_id" in said


def test_two_possible_timestamps_are_refused_with_the_flags() -> None:
    said = refusal(table(drop=("ts",), event_time=table()["ts"], created_at=table()["ts"]))
    assert "event_time and created_at could both be the timestamp" in said
    assert "--timestamp event_time or --timestamp created_at" in said


def test_no_time_at_all_is_refused() -> None:
    assert "no column can be the timestamp" in refusal(table(drop=("ts",)))


@pytest.mark.parametrize("given", [{}, {"timestamp": "ts"}])
def test_a_timestamp_that_does_not_parse_is_refused_with_the_value(given: dict[str, str]) -> None:
    said = refusal(table(ts=["2024-01-01T00:00:00Z", *["last tuesday"] * (N - 1)]), **given)
    assert "column ts cannot be the timestamp" in said
    assert "'last tuesday', in row 2" in said


def test_seconds_since_1970_are_times_only_under_such_a_name() -> None:
    epochs = [str(1_700_000_000 + 3600 * k) for k in range(N)]
    proposal = propose(table(drop=("ts",), timestamp=epochs, price=epochs))
    assert proposal.config.contract.timestamp == "timestamp"
    assert proposal.examples[0]["timestamp"] == "2023-11-14T22:13:20Z"
    assert role_of(proposal, "price") == ("context", "number")


def test_times_without_a_zone_are_read_as_utc_and_said_so() -> None:
    naive = [text.removesuffix("+00:00") for text in table()["ts"].to_pylist()]
    proposal = propose(table(ts=naive))
    assert proposal.config.contract.naive_timestamps == "utc"
    assert any("without a zone are read as UTC" in warning for warning in proposal.warnings)
    assert propose(table()).config.contract.naive_timestamps == "quarantine"


def test_a_date_alone_has_no_zone() -> None:
    assert (
        propose(table(ts=[text[:10] for text in table()["ts"].to_pylist()])).config.contract.naive_timestamps == "utc"
    )


def test_label_time_is_never_before_the_timestamp_and_sets_attribution() -> None:
    later = [
        (datetime.fromisoformat(t) + timedelta(hours=k % 40)).isoformat()
        for k, t in enumerate(table()["ts"].to_pylist())
    ]
    config = propose(table(label_ts=later)).config
    assert config.contract.label_time == "label_ts"
    assert config.windows.attribution == timedelta(days=2)
    earlier = [(datetime.fromisoformat(t) - timedelta(hours=1)).isoformat() for t in table()["ts"].to_pylist()]
    config = propose(table(label_ts=earlier)).config
    assert config.contract.label_time is None
    assert config.windows.attribution == timedelta(0)


def test_two_possible_labels_are_refused_with_the_flags() -> None:
    label = table()["label"]
    said = refusal(table(drop=("label",), clicked=label, watched=label))
    assert "clicked and watched could both be the label" in said
    assert "--label clicked or --label watched" in said


def test_no_label_is_refused() -> None:
    assert "no column can be the label" in refusal(table(drop=("label",)))


@pytest.mark.parametrize("given", [{}, {"label": "rating"}])
def test_grades_are_refused_with_the_comparison_to_write(given: dict[str, str]) -> None:
    said = refusal(table(drop=("label",), rating=[str(1 + k % 5) for k in range(N)]), **given)
    assert "it has 5 values and is not 0/1: 1, 2, 3, 4, 5" in said
    assert '--label "rating >= 3"' in said or '--label "rating >= 4"' in said


def test_grades_become_a_label_by_comparison_or_by_kind() -> None:
    sample = table(drop=("label",), rating=[str(1 + k % 5) for k in range(N)])
    config = propose(sample, label="rating >= 4").config
    assert (config.contract.label, config.contract.kind) == ("rating >= 4", "binary")
    assert "rating" not in config.context
    assert propose(sample, kind="number").config.contract.kind == "number"


def test_a_label_of_many_numbers_is_a_number() -> None:
    assert propose(table(label=[str(k / 7) for k in range(N)])).config.contract.kind == "number"


def test_a_label_of_words_is_refused_with_the_comparison_to_write() -> None:
    sample = table(drop=("label",), response=["no", "no", "no", "yes"] * (N // 4))
    assert "--label \"response == 'yes'\"" in refusal(sample)
    assert propose(sample, label="response == 'yes'").examples[0]["label"] == "0"


@pytest.mark.parametrize("values", [["true", "false"], [True, False]])
def test_true_and_false_are_a_label(values: list[Any]) -> None:
    assert propose(table(label=values * (N // 2))).config.contract.kind == "binary"


def test_silence_means_zero_where_there_are_only_ones_and_gaps() -> None:
    assert propose(table(label=["1", None] * (N // 2))).config.windows.silence == 0
    assert propose(table(label=["1", "0", None, "0"] * (N // 4))).config.windows.silence == "unlabelled"
    assert propose(table()).config.windows.silence == "unlabelled"


def test_event_ids_are_unique_and_called_so() -> None:
    assert propose(table(id=[str(k) for k in range(N)])).config.contract.event_id == "id"
    assert propose(table(id=[str(k // 2) for k in range(N)])).config.contract.event_id is None
    both = table(id=[str(k) for k in range(N)], event_id=[str(k) for k in range(N)])
    assert propose(both).config.contract.event_id == "event_id"


def test_requests_have_several_rows_each() -> None:
    assert propose(table(session_id=[f"s{k // 4}" for k in range(N)])).config.contract.request == "session_id"
    assert propose(table(session_id=[f"s{k}" for k in range(N)])).config.contract.request is None


def test_position_and_propensity_by_name_and_range() -> None:
    contract = propose(table(slot=["1", "2"] * (N // 2), p=["0.5", "0.25"] * (N // 2))).config.contract
    assert (contract.position, contract.propensity) == ("slot", "p")
    contract = propose(table(slot=["1.5", "2"] * (N // 2), p=["0.5", "7"] * (N // 2))).config.contract
    assert (contract.position, contract.propensity) == (None, None)


def test_a_given_role_with_odd_values_is_remarked_on() -> None:
    sample = table(chance=["0.5", "7"] * (N // 2), place=["1", "top"] * (N // 2))
    said = " ".join(propose(sample, propensity="chance", position="place").warnings)
    assert f"chance: {N // 2} of {N} values are no propensity" in said
    assert f"place: {N // 2} of {N} values are no position" in said


def test_a_comparison_that_cannot_be_read_is_refused() -> None:
    assert "four is no number" in refusal(table(), label="age >= four")
    assert "device is not a number: " in refusal(table(), label="device >= 4")


def test_one_column_cannot_play_two_roles() -> None:
    assert "cannot play two roles" in refusal(table(), user="user_id", item="user_id")


@pytest.mark.parametrize(
    ("name", "values", "why"),
    [
        ("country", ["NL"] * N, "always 'NL'"),
        ("note", [None] * N, "empty"),
        ("comment", [f"text {k}" for k in range(N)], "nearly every value is another"),
        ("updated", [f"2024-01-{1 + k % 28:02}" for k in range(N)], "a time"),
        ("source", ["ad", "mail"] * (N // 2), "under this name"),
        ("late", ["1", "2"] * (N // 2), "under this name"),
    ],
)
def test_what_is_of_no_use_is_left_out_with_the_reason(name: str, values: list[Any], why: str) -> None:
    proposal = propose(table(**{name: values}))
    role = next(role for role in proposal.mapping if role.column == name)
    assert role.role == "left out"
    assert why in role.why
    assert name not in proposal.config.context


@pytest.mark.parametrize(
    "name",
    ["outcome_score", "final_price", "minutes_watched", "watch_time", "rank_after", "result", "dwell_ms", "duration"],
)
def test_columns_called_after_what_happened_afterwards_are_outcomes(name: str) -> None:
    values = [str(k) for k in np.random.default_rng(1).integers(0, 90, N)]
    proposal = propose(table(**{name: values}))
    assert proposal.config.contract.outcomes == (name,)
    assert any(name in warning for warning in proposal.warnings)


def test_the_duration_of_an_item_is_context() -> None:
    length = {item: str(80 + 2 * k) for k, item in enumerate(sorted(set(table()["item_id"].to_pylist())))}
    proposal = propose(table(duration=[length[item] for item in table()["item_id"].to_pylist()]))
    assert role_of(proposal, "duration") == ("context", "number")


@pytest.mark.parametrize("given", ["number", "reversed", "word", "presence"])
def test_a_column_that_tells_the_label_alone_is_an_outcome(given: str) -> None:
    label = [int(k) for k in table()["label"].to_pylist()]
    leaks = {
        "number": [str(10 * k + n % 7) for n, k in enumerate(label)],
        "reversed": [str(-10 * k + n % 7) for n, k in enumerate(label)],
        "word": ["sold" if k else "kept" for k in label],
        "presence": ["7.5" if k else None for k in label],
    }
    role = next(role for role in propose(table(amount_x=leaks[given])).mapping if role.column == "amount_x")
    assert role.role == "outcome"
    assert "AUC 1.00" in role.why


def test_a_good_feature_is_no_leak() -> None:
    random = np.random.default_rng(3)
    noisy = [str(int(k) + random.normal(0, 0.7)) for k in table()["label"].to_pylist()]
    assert role_of(propose(table(affinity=noisy)), "affinity") == ("context", "number")


def test_text_with_commas_is_no_list_but_tags_are() -> None:
    titles = [f"The {k}, and the {k * 7}" for k in range(N)]
    assert role_of(propose(table(title_x=titles)), "title_x") == ("left out", "")
    assert propose(table(tags=["a;b", "b;c", "c", "a"] * (N // 4))).config.contract.lists["tags"] == ";"


def test_lists_of_parquet_are_lists() -> None:
    sample = table(genres=[["a", "b"], ["b"], ["c"], None] * (N // 4))
    assert propose(sample).config.contract.lists == {"genres": "|"}


def test_numbers_that_are_ids_are_names() -> None:
    assert role_of(propose(table(shop_id=[str(k % 30) for k in range(N)])), "shop_id") == ("context", "name")


@pytest.mark.parametrize(
    ("days", "every"),
    [
        (4, timedelta(hours=1)),
        (30, timedelta(hours=6)),
        (100, timedelta(days=1)),
        (960, timedelta(days=7)),
        (4000, timedelta(days=28)),
    ],
)
def test_windows_cut_the_history_into_about_a_hundred(days: int, every: timedelta) -> None:
    times = [(START + k * timedelta(days=days) / N).isoformat() for k in range(N)]
    config = propose(table(ts=times)).config
    assert config.windows.every == every
    assert 60 <= timedelta(days=days) / every <= 200


def test_days_are_never_cut_finer_than_days() -> None:
    days = [(START + timedelta(days=k * 10 // N)).isoformat() for k in range(N)]
    assert propose(table(ts=days)).config.windows.every == timedelta(days=1)


def test_one_time_far_off_does_not_stretch_the_windows() -> None:
    times = ["1995-01-01T00:00:00Z", *table()["ts"].to_pylist()[1:]]
    assert propose(table(ts=times)).config.windows.every == timedelta(days=1)


def test_counters_cross_users_with_what_varies_and_back_off() -> None:
    features = propose(table()).config.features
    found = {counter.name: counter.backoff for counter in features.counters}
    assert found["user"] is None
    assert found["item"] is None
    assert found["user_x_genres"] == "user"
    assert found["user_x_device"] == "user"
    assert found["item_x_device"] == "item"
    assert len(features.counters) <= 8
    assert features.counters[0].half_lives == (timedelta(days=4), None)


def test_counters_do_not_cross_users_with_what_is_always_theirs() -> None:
    country = [str(["NL", "BE"][int(user[1:]) % 2]) for user in table()["user_id"].to_pylist()]
    names = {counter.name for counter in propose(table(drop=("genres",), country=country)).config.features.counters}
    assert "user_x_country" not in names
    assert "item_x_country" in names


@pytest.mark.parametrize(
    "drop", [("user_id",), ("item_id",), ("user_id", "item_id"), ("user_id", "item_id", "genres", "device")]
)
def test_logs_without_users_or_items_work(drop: tuple[str, ...]) -> None:
    proposal = propose(table(drop=drop))
    keys = {key for counter in proposal.config.features.counters for key in counter.key}
    assert not keys & {name.removesuffix("_id") for name in drop}
    missing = [name.removesuffix("_id") for name in drop if name.endswith("_id")]
    assert all(any(f"columns of {role}s" in warning for warning in proposal.warnings) for role in missing)


def test_the_exam_is_a_twentieth_and_at_least_two_thousand_rows_where_there_are_enough() -> None:
    def rows(total: int) -> int:
        return propose(table().replace_schema_metadata({"flywheel.rows": str(total)})).config.exam.rows

    assert rows(1_000_000) == 50_000
    assert rows(30_000) == 2000
    assert rows(4000) == 400
    small = propose(table())
    assert any("below [gate] min_rows" in warning for warning in small.warnings)


def test_a_head_is_stretched_to_the_whole_and_said_so() -> None:
    head = table().replace_schema_metadata({"flywheel.rows": str(10 * N), "flywheel.part": "head"})
    proposal = propose(head)
    assert proposal.config.windows.every == timedelta(days=7)
    assert any("only the head" in warning for warning in proposal.warnings)


def test_rare_labels_and_single_classes_are_remarked_on() -> None:
    assert any("only 0.5 %" in warning for warning in propose(table(label=["1", *["0"] * 199] * 10)).warnings)
    assert any("every label in the sample is 0" in warning for warning in propose(table(label=["0"] * N)).warnings)


def test_a_name_that_mlflow_cannot_take_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"product\.name"):
        infer(table(), name="my shop!", url="log.csv")
