"""The folder in which one product's wheel runs, as an object: the notebook's door to windows, rows and generations."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from flywheel import config as settings
from flywheel.config import Config
from flywheel.records import LedgerLine
from flywheel.windows import Windows

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from flywheel.integrations.mlflow_model import Stored
    from flywheel.learn.matrix import Cache, Recipe


RESTORE = "dvc pull; without a remote, dvc checkout data.dvc"


@dataclass(frozen=True)
class Workspace:
    """One product's wheel: its settings and the places where its things are."""

    root: Path
    config: Config

    @classmethod
    def open(cls, path: Path) -> "Workspace":
        """Open the workspace at `path`.

        Raises:
            ConfigError: it has no flywheel.toml, or one that cannot be read as meant.
        """
        root = path.resolve()
        return cls(root, settings.load(root))

    @property
    def data(self) -> Path:
        """The dataset: closed windows, quarantine and ledger."""
        return self.root / "data"

    @property
    def inbox(self) -> Path:
        """What arrived and is not yet in a closed window."""
        return self.root / "inbox"

    @property
    def cache(self) -> Path:
        """What may be deleted at the price of time."""
        return self.root / ".flywheel"

    @property
    def expectations(self) -> Path:
        """The suites that guard the doors."""
        return self.root / "expectations"

    def ledger(self) -> tuple[LedgerLine, ...]:
        """What became of every event, one line a closed window, oldest first.

        Raises:
            IntegrityError: data.dvc points at a dataset that is not here, or the ledger is not what was written.
        """
        from flywheel.data import dataset
        from flywheel.errors import IntegrityError

        if (self.root / "data.dvc").exists() and not (self.data / "ledger.parquet").exists():
            why = "an absent dataset is no empty one: every window would be closed anew"
            raise IntegrityError("the dataset is not here", where=str(self.data), why=why, next=RESTORE)
        return dataset.read_ledger(self.data)

    def rows(self, start: str | None = None, end: str | None = None) -> "pd.DataFrame":
        """The rows of the closed windows named from `start` up to and without `end`, as pandas."""
        import pyarrow as pa

        from flywheel.data import dataset

        names = [line.window for line in self.ledger()]
        chosen = [n for n in names if (start is None or n >= start) and (end is None or n < end)]
        tables = [dataset.read_window(self.data, name) for name in chosen]
        return pa.concat_tables(tables).to_pandas() if tables else self._no_rows()

    def generations(self) -> "pd.DataFrame":
        """Every generation, promoted or not: one row each, as `flywheel generations` shows them."""
        import pandas as pd

        from flywheel.integrations import mlflow_store, mlflow_tracking

        made = mlflow_tracking.generations(mlflow_store.open(self.root, self.config.product.name, self.config.registry))
        records = [{**g.__dict__, **g.metrics} for g in made]
        columns = [
            "generation",
            "as_of",
            "train_rows",
            "train_users",
            "exam_rows",
            self.config.metric,
            "verdict",
            "reason",
        ]
        frame = pd.DataFrame.from_records(records, columns=None if records else columns)
        return frame[[c for c in [*columns, "alias", "dataset"] if c in frame]].set_index("generation")

    def model(self, which: int | str = "champion") -> "Stored":
        """A generation's stored model, by number or alias, verified.

        Raises:
            RegistryError: there is none.
            IntegrityError: its bytes are not those that were stored.
        """
        from flywheel.integrations import mlflow_registry, mlflow_store

        return mlflow_registry.load(mlflow_store.open(self.root, self.config.product.name, self.config.registry), which)

    @cached_property
    def recipe(self) -> "Recipe":
        """How this workspace's feature columns are made today."""
        from flywheel.learn import matrix

        return matrix.recipe(self.config, self.root)

    def matrices(self, recipe: "Recipe | None" = None) -> "Cache":
        """The feature matrices of the closed windows, made by `recipe` (without it, today's)."""
        from flywheel.data import dataset
        from flywheel.learn.matrix import Cache

        grid = self.config.windows.grid
        chain = {grid.parse(name): address for name, address in dataset.chain(self.ledger()).items()}
        return Cache(self.cache, recipe or self.recipe, chain, self.reader)

    @property
    def reader(self) -> "Callable[[int, list[str]], pa.Table]":
        """Gives some columns of a closed window, by the window's index; and since when its late rows are known."""
        return partial(_read, self.data, self.config.windows.grid)

    def _no_rows(self) -> "pd.DataFrame":
        import pandas as pd

        from flywheel.schema import row_schema

        return pd.DataFrame(columns=row_schema(self.config).names)


def _read(data: Path, grid: Windows, window: int, columns: list[str]) -> "pa.Table":
    from flywheel.data import dataset

    return dataset.read_window(data, grid.name(window), columns, maybe=["known_since"])
