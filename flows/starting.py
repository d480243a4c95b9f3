"""`flywheel init`: a folder becomes a workspace, from a look at a file or a database."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from flywheel.config import Config, laid_over, load
from flywheel.errors import ConfigError
from flywheel.infer import Given, Proposal, infer
from flywheel.integrations import dvc_data, git_repo, gx_profile, mlflow_store
from flywheel.scaffold import write_workspace
from flywheel.schema import event_schema
from flywheel.sections import SourceConfig
from flywheel.sources.normalise import normalise
from flywheel.sources.sample import read_sample


@dataclass(frozen=True)
class Started:
    """What `init` made of a source, and the files it wrote; none, if it was only asked to look."""

    proposal: Proposal
    files: tuple[Path, ...]


def start(root: Path, url: str, given: Given, *, name: str | None = None, look_only: bool = False) -> Started:
    """Look at a source, and make `root` a workspace for it: config, suites, git, DVC and an MLflow store.

    Raises:
        ConfigError: the folder is a workspace already, or the source does not say enough; what to write then.
        SourceError: the source cannot be read.
    """
    if (root / "flywheel.toml").exists():
        raise _twice(root)
    sample = read_sample(url, Path.cwd(), table=given.get("table"), query=given.get("query"))
    proposal = infer(sample, name=name or root.resolve().name, url=_seen_from(root, url), **given)
    if look_only:
        return Started(proposal, ())
    root.mkdir(parents=True, exist_ok=True)
    written = create(root, proposal.config, _suites(sample, proposal.config))
    return Started(proposal, written)


def start_serving(root: Path, config: Config) -> tuple[Path, ...]:
    """Make `root` a workspace of a product that has no log yet; the files written.

    Raises:
        ConfigError: the folder is a workspace already.
    """
    if (root / "flywheel.toml").exists():
        raise _twice(root)
    root.mkdir(parents=True, exist_ok=True)
    frame = event_schema(config).empty_table().to_pandas()
    suites = {Path(file).stem: suite for file, suite in gx_profile.profile_suites(frame, config).items()}
    return create(root, config, suites)


def create(root: Path, config: Config, suites: Mapping[str, Mapping[str, Any]]) -> tuple[Path, ...]:
    """Make `root` a workspace of this config: its files, a git and DVC repository, and an MLflow store."""
    dvc_data.init(root)
    mlflow_store.create(root, config.product.name, laid_over(config).registry)
    written = write_workspace(root, config, suites)
    git_repo.commit(
        root, f"Start the wheel of {config.product.name}", [str(path.relative_to(root)) for path in written]
    )
    return written


def complete(root: Path) -> bool:
    """Make what a clone of a workspace lacks, DVC's folder and an MLflow store; whether `dvc pull` is still to come.

    What is there stays as it is.

    Raises:
        ConfigError: there is no flywheel.toml to go by.
    """
    config = load(root)
    dvc_data.init(root)
    mlflow_store.create(root, config.product.name, config.registry)
    return (root / "data.dvc").exists() and not (root / "data").exists()


def _twice(root: Path) -> ConfigError:
    where = str(root / "flywheel.toml")
    return ConfigError(f"{root} is a workspace already", where=where, next="choose another folder")


def _seen_from(root: Path, url: str) -> str:
    """The URL as flywheel.toml shall hold it: a local path is relative to the workspace, so that both may move."""
    if "://" in url or SourceConfig.model_construct(url=url).is_sql:
        return url
    return os.path.relpath(Path(url).expanduser().absolute(), root.absolute())


def _suites(sample: pa.Table, config: Config) -> dict[str, dict[str, Any]]:
    """First suites, profiled from the sample as it would be inside."""
    batch = sample.replace_schema_metadata().combine_chunks().to_batches()
    now = datetime.now(UTC)
    inside = [normalise(part, config, source="sample", first_row=1, now=now).events for part in batch]
    frame = pa.concat_tables([event_schema(config).empty_table(), *inside]).to_pandas()
    return {Path(file).stem: suite for file, suite in gx_profile.profile_suites(frame, config).items()}
