"""What flywheel's door is compared with, as somebody who knows these libraries would write it.

    python tests/benchmarks/serving_peers.py bare FOLDER PORT      Starlette + msgspec around the same prediction
    python tests/benchmarks/serving_peers.py fastapi FOLDER PORT   FastAPI + SQLAlchemy, one commit an event

`mlflow models serve` is started as it comes, on the model that `save_for_mlflow` writes.
"""

import sys
from pathlib import Path

import uvicorn


def run(app, port):
    print(f"http://127.0.0.1:{port}", flush=True)
    uvicorn.run(app, port=port, loop="uvloop", http="httptools", lifespan="off", access_log=False, log_level="warning")


def bare(folder):
    """No log, no checks, no exploration: features by name from two arrays, a prediction, the best ten."""
    import msgspec
    import numpy as np
    import wheel
    import xgboost as xgb
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    class Context(msgspec.Struct):
        hour: float
        age: float
        device: str
        country: str

    class Asked(msgspec.Struct):
        user: str
        candidates: list[str]
        context: Context
        k: int

    class Item(msgspec.Struct):
        item: str
        score: float

    rng = np.random.default_rng(0)
    user_rows = {f"user{i}": row for i, row in enumerate(rng.random((wheel.USERS, 6), dtype=np.float32))}
    item_rows = rng.random((wheel.ITEMS, 10), dtype=np.float32)
    item_at = {f"item{i}": i for i in range(wheel.ITEMS)}
    devices, countries = ({n: i for i, n in enumerate(names)} for names in (wheel.DEVICES, wheel.COUNTRIES))
    booster = xgb.Booster()
    booster.load_model(bytearray((folder / "generation1" / "model.ubj").read_bytes()))
    booster.set_param({"nthread": 1})
    decode, encode = msgspec.json.Decoder(Asked).decode, msgspec.json.Encoder().encode

    async def rank(request: Request) -> Response:
        asked = decode(await request.body())
        matrix = np.empty((len(asked.candidates), 20), dtype=np.float32)
        matrix[:, :6] = user_rows[asked.user]
        matrix[:, 6:16] = item_rows[[item_at[item] for item in asked.candidates]]
        context = asked.context
        matrix[:, 16:] = context.hour, context.age, devices[context.device], countries[context.country]
        scores = booster.inplace_predict(matrix, validate_features=False)
        best = np.argsort(-scores)[: asked.k]
        items = [Item(asked.candidates[i], float(scores[i])) for i in best]
        return Response(encode(items), media_type="application/json")

    return Starlette(routes=[Route("/v1/rank", rank, methods=["POST"])])


def one_commit_an_event(folder):
    """Durable and idempotent: SQLite in WAL mode, synchronous=FULL, one transaction an event."""
    import sqlalchemy as sa
    from fastapi import FastAPI
    from pydantic import BaseModel, Field
    from sqlalchemy.dialects.sqlite import insert

    class Event(BaseModel):
        event_id: str = Field(min_length=1, max_length=256)
        decision_id: str = Field(min_length=1, max_length=256)
        item: str = Field(min_length=1, max_length=256)
        value: float = Field(ge=0, le=1)

    (folder / "peer.db").unlink(missing_ok=True)
    engine = sa.create_engine(f"sqlite:///{folder / 'peer.db'}")

    @sa.event.listens_for(engine, "connect")
    def _(connection, _):
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "busy_timeout = 10000"):
            connection.execute(f"PRAGMA {pragma}")

    table = sa.Table(
        "events",
        sa.MetaData(),
        sa.Column("event_id", sa.Text, primary_key=True),
        sa.Column("decision_id", sa.Text),
        sa.Column("item", sa.Text),
        sa.Column("value", sa.Double),
    )
    table.metadata.create_all(engine)
    app = FastAPI()

    @app.post("/v1/outcomes")
    def outcomes(event: Event):
        with engine.begin() as connection:
            done = connection.execute(insert(table).values(**event.model_dump()).on_conflict_do_nothing())
        return {"accepted": True, "duplicate": done.rowcount == 0}

    return app


def save_for_mlflow(folder):
    """The model as `mlflow models serve` takes it, with a signature, as MLflow's guide has it."""
    import mlflow.xgboost
    import numpy as np
    import pandas as pd
    import wheel
    import xgboost as xgb
    from mlflow.models import infer_signature

    booster = xgb.Booster()
    booster.load_model(bytearray((folder / "generation1" / "model.ubj").read_bytes()))
    booster.feature_names, booster.feature_types = list(wheel.SPEC.names), ["float"] * 18 + ["int"] * 2
    path = folder / "mlflow"
    if not path.exists():
        rows = pd.DataFrame(wheel.matrix(np.random.default_rng(0), 50).astype(float), columns=list(wheel.SPEC.names))
        signature = infer_signature(rows, np.zeros(len(rows)))
        mlflow.xgboost.save_model(booster, path, model_format="ubj", pip_requirements=["xgboost"], signature=signature)
    return path


if __name__ == "__main__":
    _, name, where, at = sys.argv
    run({"bare": bare, "fastapi": one_commit_an_event}[name](Path(where)), int(at))
