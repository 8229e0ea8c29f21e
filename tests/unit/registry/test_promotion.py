"""Promotion: what is refused before a version is loaded."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from crackseg.errors import CracksegError
from crackseg.registry.promotion import promote

PARAMS = Path(__file__).parents[3] / "params.yaml"


def test_a_data_version_in_conflict_is_named(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(PARAMS.read_bytes())
    (tmp_path / "data.dvc").write_text("<<<<<<< HEAD\nouts:\n- md5: a\n=======\n")
    production = SimpleNamespace(name="crackseg", store=SimpleNamespace(root=tmp_path), read=lambda: None)
    with pytest.raises(CracksegError, match=r"data\.dvc is in conflict"):
        promote(production)  # type: ignore[arg-type]
