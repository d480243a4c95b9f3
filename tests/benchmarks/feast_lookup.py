"""Feast's part of features.py, in an environment of its own: look ready states up, as of each row's instant.

    python tests/benchmarks/feast_lookup.py FOLDER

FOLDER has `rows.parquet` (`r`, `event_timestamp`, and a column a key) and per key `NAME.parquet`: what is known of it
from an instant on. Feast keeps and joins what somebody else has counted; so the counting is not in the seconds that are
printed, nor what follows from it (fading, back-off). The offline store is Feast's own for files.
"""

import json
import os
import sys
import time
import warnings
from datetime import timedelta
from pathlib import Path

os.environ["FEAST_USAGE"] = "False"
warnings.simplefilter("ignore")

import pandas as pd  # noqa: E402
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig  # noqa: E402
from feast.types import Float64  # noqa: E402
from feast.value_type import ValueType  # noqa: E402


def store(folder, names):
    """A feature store on a folder, with a view for each key."""
    told = {
        "project": "bench",
        "provider": "local",
        "registry": str(folder / "registry.db"),
        "online_store": {"type": "sqlite", "path": str(folder / "online.db")},
        "offline_store": {"type": "file"},
        "entity_key_serialization_version": 3,
    }
    made, views = FeatureStore(config=RepoConfig(**told)), []
    for name in names:
        path = folder / f"{name}.parquet"
        source = FileSource(path=str(path), timestamp_field="event_timestamp")
        key = Entity(name=name, join_keys=[name], value_type=ValueType.STRING)
        columns = [c for c in pd.read_parquet(path).columns if c not in (name, "event_timestamp")]
        schema = [Field(name=column, dtype=Float64) for column in columns]
        views += [FeatureView(name=f"of_{name}", entities=[key], ttl=timedelta(0), schema=schema, source=source)]
        made.apply([key, views[-1]])
    return made, [f"{view.name}:{field.name}" for view in views for field in view.features]


def main(folder):
    rows = pd.read_parquet(folder / "rows.parquet")
    names = [name for name in rows.columns if name not in ("r", "event_timestamp")]
    made, features = store(folder, names)
    began, cpu = time.perf_counter(), time.process_time()
    found = made.get_historical_features(entity_df=rows, features=features, full_feature_names=True).to_df()
    took = time.perf_counter() - began, time.process_time() - cpu
    found.to_parquet(folder / "found.parquet")
    print(json.dumps(took))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
