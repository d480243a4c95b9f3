"""Great Expectations, and nothing else of it than this: read a suite, run it on a frame, render its pages.

A suite is plain JSON in `expectations/`. What an expectation can do to a window:

    judges each row (a map expectation without `mostly`)     critical: its bad rows are quarantined; else it warns
    judges the window (`mostly` < 1, aggregates, the table)  critical: the window is blocked; else it warns
    could not be computed (no such column, an exception)     the window is blocked, whatever the severity
"""

import difflib
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import great_expectations as gx
import pandas as pd
from great_expectations.core.run_identifier import RunIdentifier
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.expectations.expectation import (
    ColumnMapExpectation,
    ColumnPairMapExpectation,
    MulticolumnMapExpectation,
)
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
from great_expectations.expectations.registry import (
    get_expectation_impl,
    list_registered_expectation_implementations,
)

from flywheel.errors import ConfigError
from flywheel.integrations.gx_profile import profile_suites
from flywheel.integrations.gx_words import demand, say
from flywheel.records import SuiteResult

__all__ = ["Suite", "data_docs", "profile_suites", "read", "run"]

_MAPS = (ColumnMapExpectation, ColumnPairMapExpectation, MulticolumnMapExpectation)
_SUITE_KEYS = ("name", "expectations", "meta", "notes", "id")
_KEYS = ("type", "kwargs", "severity", "meta", "notes", "description", "id")
_ROW_COUNTS = ("expect_table_row_count_to_be_between", "expect_table_row_count_to_equal")
# The positions of bad rows and nothing about their values: asking for id columns instead takes eight times as long.
_FORMAT = {
    "result_format": "COMPLETE",
    "return_unexpected_index_query": False,
    "exclude_unexpected_values": True,
    "partial_unexpected_count": 0,
}


@dataclass(frozen=True)
class Suite:
    """A suite that was read and checked; `demands` says each expectation in words, in the order of the file."""

    name: str
    demands: tuple[str, ...]
    built: gx.ExpectationSuite


def read(path: Path) -> Suite:
    """Read a suite from its JSON file; a file that did not change is built once a process.

    Raises:
        ConfigError: names the file and the number of the expectation, from 1, and the nearest known name.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"there is no suite {path.name}", where=str(path), next="flywheel init writes one") from None
    except UnicodeDecodeError as error:
        raise _wrong(path, f"{path.name} is not UTF-8 text", str(error)) from None
    return _build(path, text)


def run(suite: Suite, frame: pd.DataFrame) -> SuiteResult:
    """What the suite says of a frame; its bad rows are positions, whatever the frame's index.

    Of a frame without rows only the number of rows is judged.
    """
    batch = _frames().get_batch({"dataframe": frame.set_axis(pd.RangeIndex(len(frame)))})
    results = sorted(batch.validate(suite.built, result_format=_FORMAT).results, key=_number)
    bad_rows: dict[int, tuple[str, ...]] = {}
    failures: list[tuple[str, bool]] = []
    for built, words, result in zip(suite.built.expectations, suite.demands, results, strict=True):
        if result.success or (frame.empty and built.expectation_type not in _ROW_COUNTS):
            continue
        bad = [int(position) for position in result.result.get("unexpected_index_list") or ()]
        critical = built.severity == "critical"
        if (raised := _raised(result.exception_info)) is not None:
            failures.append((f"{words}; this could not be computed: {raised}", True))
        elif bad and critical and _judges_rows(built):
            bad_rows |= {position: (*bad_rows.get(position, ()), words) for position in bad}
        else:
            failures.append((f"{words}; {_observed(result.result, len(bad))}", critical))
    return SuiteResult(bad_rows, tuple(failures))


def data_docs(folder: Path, suites: Sequence[Suite], frames: Mapping[str, pd.DataFrame]) -> Path:
    """Render Great Expectations' own pages for these windows into `folder`, and return the first page.

    Every suite is run on every frame. The pages take their fonts and styles from the network: without one they are
    plain, and complete.
    """
    context = _context()
    backend = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder.resolve())}
    site = {"class_name": "SiteBuilder", "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"}}
    context.add_data_docs_site("flywheel", {**site, "store_backend": backend})
    data = context.data_sources.add_pandas("windows").add_dataframe_asset("rows")
    for suite in suites:
        expectations = [_expectation(built.configuration) for built in suite.built.expectations]
        stored = context.suites.add(gx.ExpectationSuite(suite.name, expectations=expectations))
        batches = data.add_batch_definition_whole_dataframe(suite.name)
        definition = gx.ValidationDefinition(name=suite.name, data=batches, suite=stored)
        context.validation_definitions.add(definition)
        for window, frame in frames.items():
            parameters = {"dataframe": frame.set_axis(pd.RangeIndex(len(frame)))}
            definition.run(batch_parameters=parameters, run_id=RunIdentifier(run_name=window))
    context.build_data_docs(site_names=["flywheel"])
    return folder / "index.html"


@functools.lru_cache(maxsize=32)
def _build(path: Path, text: str) -> Suite:
    listed = list(_listed(path, text))
    built = [_checked(path, number, values) for number, values in enumerate(listed, start=1)]
    suite = gx.ExpectationSuite(name=path.stem, expectations=built)
    for number, expectation in enumerate(suite.expectations):
        expectation.id = str(number)  # results come in another order, and are told apart by it
    demands = tuple(demand(values["type"], values["kwargs"]) for values in listed)
    return Suite(path.stem, demands, suite)


def _listed(path: Path, text: str) -> Iterator[dict[str, Any]]:
    try:
        values = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise _wrong(path, f"{path.name} is not valid JSON", str(error)) from None
    if not isinstance(values, dict) or not isinstance(values.get("expectations"), list):
        why = 'it must be one object with "name" and a list of "expectations"'
        raise _wrong(path, f"{path.name} is not a suite", why)
    _refuse_unknown(path, path.name, values, _SUITE_KEYS)
    for number, expectation in enumerate(values["expectations"], start=1):
        what = f"expectation {number} of {path.name}"
        if not isinstance(expectation, dict) or not isinstance(expectation.get("type"), str):
            raise _wrong(path, f"{what} is not one", 'it must be an object with a "type"')
        _refuse_unknown(path, what, expectation, _KEYS)
        kwargs = expectation.get("kwargs", {})
        if not isinstance(kwargs, dict):
            raise _wrong(path, f"{what} cannot be read", "its kwargs are not an object")
        yield {**expectation, "kwargs": kwargs}


def _checked(path: Path, number: int, values: dict[str, Any]) -> Any:
    """Build one expectation. Great Expectations itself would only log a wrong one, and leave it out."""
    what, kind = f"expectation {number} of {path.name}", values["type"]
    known = list_registered_expectation_implementations()
    if kind not in known:
        why = f"there is no {kind}; the nearest known type is {_nearest(kind, known)}"
        raise _wrong(path, f"{what} is of an unknown type", why)
    _refuse_unknown(path, what, values["kwargs"], tuple(get_expectation_impl(kind).__fields__))
    if (severity := values.get("severity", "critical")) not in ("critical", "warning", "info"):
        why = f"its severity is {severity!r}; known are critical, warning and info"
        raise _wrong(path, f"{what} cannot be read", why)
    try:
        return ExpectationConfiguration(**{k: v for k, v in values.items() if k != "id"}).to_domain_obj()
    except (ValueError, TypeError) as error:
        lines = [line.strip() for line in str(error).splitlines()]
        why = f"{kind}: {' '.join(lines[1:] or lines)}"
        raise _wrong(path, f"{what} cannot be read", why) from None


def _expectation(configuration: ExpectationConfiguration) -> Any:
    """The same expectation again, as one belongs to one suite only."""
    copied = ExpectationConfiguration(
        type=configuration.type,
        kwargs=configuration.kwargs,
        meta=configuration.meta,
        severity=configuration.severity,
    )
    return copied.to_domain_obj()


def _refuse_unknown(path: Path, what: str, values: dict[str, Any], known: Sequence[str]) -> None:
    for key in values:
        if key not in known:
            why = f"the nearest known key is {_nearest(key, known)}"
            raise _wrong(path, f"{what} has an unknown key {key}", why)


def _wrong(path: Path, what: str, why: str) -> ConfigError:
    return ConfigError(what, where=str(path), why=why, next=f"edit expectations/{path.name}")


def _nearest(name: str, known: Sequence[str]) -> str:
    return difflib.get_close_matches(name, known, n=1, cutoff=0)[0]


def _context() -> Any:
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return context


@functools.cache
def _frames() -> Any:
    """Where frames are handed in: one for the whole process. It keeps neither frames nor results."""
    asset = _context().data_sources.add_pandas("flywheel").add_dataframe_asset("frame")
    return asset.add_batch_definition_whole_dataframe("whole")


def _number(result: Any) -> int:
    return int(result.expectation_config.id)


def _judges_rows(built: Any) -> bool:
    return isinstance(built, _MAPS) and built.mostly == 1


def _raised(info: dict[str, Any]) -> str | None:
    """The gist of what was raised inside an expectation, if anything was."""
    found = [info] if "raised_exception" in info else list(info.values())
    found = [one for one in found if one.get("raised_exception")]
    return say(found[0].get("exception_message") or "an exception without a message") if found else None


def _observed(result: dict[str, Any], bad: int) -> str:
    if "unexpected_percent" in result:
        share = 100 - (result["unexpected_percent"] or 0)
        return f"it is so in {share:.4g} %, and not in {bad:,} of {result.get('element_count', 0):,} rows"
    return f"observed: {say(result['observed_value'])}" if "observed_value" in result else "it is not so"
