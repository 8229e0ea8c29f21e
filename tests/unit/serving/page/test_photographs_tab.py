"""A moved slider measures at once and writes files for what is still shown only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gradio as gr
import numpy as np
import pytest

from crackseg.data.images.files import write_png, write_probability_map
from crackseg.geometry.severity import OF_CONCRETE
from crackseg.inference.drift import FIGURES
from crackseg.serving.page.inspection import Inspection
from crackseg.serving.page.model_cache import ModelCache
from crackseg.serving.page.photographs_tab import PhotographsTab
from crackseg.serving.page.session import Session


@pytest.fixture
def session(tmp_path: Path) -> Session:
    crack_prob = np.zeros((60, 80), np.float32)
    crack_prob[30:33, 10:70] = 0.9
    np.save(tmp_path / "map.npy", crack_prob)
    write_probability_map(tmp_path / "map.png", crack_prob)
    write_png(tmp_path / "deck.png", np.full((60, 80, 3), 150, np.uint8))
    session = Session(ModelCache(None), tmp_path)
    session.inspections["deck.png"] = Inspection(
        name="deck.png", image_path=tmp_path / "deck.png", map_path=tmp_path / "map.npy", operating_threshold=0.4,
        values={}, unusual=(),
    )  # fmt: skip
    session.inspections["deck.png"].view_path.touch()
    session.inspections["deck.png"].heat_path.touch()
    session.shown = "deck.png"
    return session


def test_the_list_of_a_thousand_photographs_is_not_sent_a_thousand_times(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gr.Blocks():
        tab = PhotographsTab(OF_CONCRETE)
    deck = session.inspections["deck.png"]
    monkeypatch.setattr(
        "crackseg.serving.page.session.inspect_photograph",
        lambda _analyzer, path, _map_path: replace(deck, name=path.name, values=dict.fromkeys(FIGURES, 0.5)),
    )
    names = [f"{number}.png" for number in range(1000)]
    sent = [changes for changes in tab.inspect(session, names, "scenes") if tab.photograph in changes]
    listed = [[name for name, _ in changes[tab.photograph].choices] for changes in sent]
    assert listed[-1] == names
    assert {1, 2, 3, 4, 5} <= {len(list_) for list_ in listed}  # each of the first as soon as it is ready
    assert sum(map(len, listed)) < 15 * len(names)


def test_files_are_written_for_the_last_measurement_only(session: Session) -> None:
    with gr.Blocks():
        tab = PhotographsTab(OF_CONCRETE)
    *_, shown = tab.measure(session, 0.4, "0.5", "")
    assert "1 crack" in shown[tab.summary]
    assert session.unwritten
    folder = session.unwritten[0].folder
    assert not folder.exists()
    session.begin_measurement()  # the slider has moved on
    assert not set(tab.downloads.values()) & set(tab.write(session))
    assert not folder.exists()

    list(tab.measure(session, 0.4, "0.5", ""))
    offered = tab.write(session)
    for name, button in tab.downloads.items():
        assert Path(offered[button].value["path"]).is_file(), name
    assert not set(tab.downloads.values()) & set(tab.write(session))  # nothing is left to write
