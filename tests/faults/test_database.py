"""MLflow's SQLite database syncs each change, so promotions and delivered records survive a power loss."""

from __future__ import annotations

from pathlib import Path

from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

from tests.registry_store import make_registry


def test_the_registry_syncs_each_change(tmp_path: Path) -> None:
    store = make_registry(tmp_path, 1).store
    with SqlAlchemyStore(store.uri).engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
