"""The limit of a turn: XGBoost reads matrices and labels from Parquet and fits, without us; see turn.py."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import xgboost as xgb


def main() -> None:
    """Read, fit, keep the model, and print the seconds of matrix and fit as JSON."""
    folder = Path(sys.argv[1])
    told = json.loads((folder / "told.json").read_text())
    table = pq.read_table(sorted(folder.glob("*.parquet")))
    began, cpu = time.perf_counter(), time.process_time()
    names = [name for name in table.column_names if name != "label"]
    rows = np.column_stack([table.column(name).to_numpy() for name in names])
    label = table.column("label").to_numpy()
    data = xgb.QuantileDMatrix(rows, label, feature_names=names, feature_types=told["types"], enable_categorical=True)
    params = {**told["params"], "objective": "binary:logistic", "tree_method": "hist"}
    xgb.train(params, data, told["rounds"]).save_model(folder / "model.ubj")
    print(json.dumps({"fit": time.perf_counter() - began, "fit_cpu": time.process_time() - cpu}))


if __name__ == "__main__":
    main()
