"""A version that was registered by an earlier crackseg, whose modules lay elsewhere, is a version like any other."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import pytest

from crackseg.data.images.files import read_image
from crackseg.data.synthetic.sample import write_sample
from crackseg.files import write_json
from crackseg.project import Layout
from crackseg.registry.loading import load_model
from crackseg.registry.production import Production
from crackseg.registry.promotion import promote
from crackseg.registry.register import register_model
from crackseg.tracking.store import Store
from crackseg.tracking.transfer.importing import import_store
from tests.registry_store import describe
from tests.registry_store import promote as promote_without_gate
from tests.tiny_model import make_model

COMMITTED = Path(__file__).parents[3] / "params.yaml"
# `crackseg store export` of a store with one version: an untrained U-Net of width 4, with the code of November 2026.
EXPORT = Path(__file__).with_name("registered_before_the_move.tar.xz")


@pytest.fixture
def production(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Production:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with tarfile.open(EXPORT) as archive:
        archive.extractall(tmp_path / "exported")
    root = tmp_path / "project"
    root.mkdir()
    shutil.copy(COMMITTED, root)
    (root / "data.dvc").write_text("outs:\n- md5: 0.dir\n  path: data\n", encoding="utf-8")
    params = (root / "params.yaml").read_text(encoding="utf-8")
    tested = "test_datasets: [CrackTree260, CRKWH100, CrackLS315, Stone331]"
    assert tested in params
    (root / "params.yaml").write_text(params.replace(tested, "test_datasets: [CRKWH100]"), encoding="utf-8")
    write_sample(root / "outputs" / "prepared", seed=1, counts={"CRKWH100": (0, 0, 2)}, size=(96, 96))
    write_json(Layout(root).data_versions, {"md5": "0.dir"})
    store = Store(root)
    import_store(store, tmp_path / "exported")
    return Production(store, "crackseg")


def test_a_version_of_an_earlier_crackseg_predicts_and_goes_through_the_gate_and_back(
    production: Production, tmp_path: Path
) -> None:
    root = production.store.root
    loaded = load_model("models:/crackseg/1", root)
    probe_dir = next((root / "mlruns").rglob("probe.json")).parent
    for stem, expected in json.loads((probe_dir / "probe.json").read_text(encoding="utf-8"))["images"].items():
        found = loaded.analyzer.analyze(read_image(probe_dir / "images" / f"{stem}.png"))
        assert found.score == pytest.approx(expected["score"], abs=0.03)
        assert found.crack_fraction == pytest.approx(expected["crack_fraction"], abs=0.002, rel=0.1)
    # Loads it in a process without this crackseg, asks its probe, and compares it with the shipped model.
    decision = promote(production, version="1", force=True, reason="untrained, to have one")
    by_name = {check.name: check.status for check in decision.checks}
    assert (by_name["loads alone"], by_name["probe"], by_name["signature"]) == ("passed", "passed", "passed")
    assert (by_name["better"], decision.against) == ("failed", "scenes (shipped with crackseg)")
    assert decision.record is not None
    assert (decision.record.from_version, decision.record.forced) == (None, True)

    make_model(tmp_path / "files")
    register_model(
        production.store,
        run_id=production.store.create_run("now"),
        weights_path=tmp_path / "files" / "weights.pt",
        settings_path=tmp_path / "files" / "settings.json",
        probe_dir=tmp_path / "files" / "probe",
        name="crackseg",
        tags={},
    )
    promote_without_gate(production, "2")
    assert production.rollback(to=None, reason="the former one was better").to_version == "1"
    assert describe(production)["production"] == "1"
