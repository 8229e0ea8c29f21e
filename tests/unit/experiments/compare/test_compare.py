"""`crackseg compare` over a real store: what is compared, what is refused, and what is said to be missing."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from crackseg.cli import cli
from crackseg.data.images.files import read_image
from crackseg.errors import CracksegError
from crackseg.evaluation.scoring import score_split
from crackseg.experiments.compare.markdown import format_comment, format_comparison
from crackseg.experiments.compare.resolve_runs import ComparedRun
from crackseg.experiments.compare.run import Comparison, compare_runs
from crackseg.registry.version_tags import note_results_run
from tests.scored_runs import make_root, make_run


class Bench:
    """A store with a good and a bad run, and one that is nearly as good."""

    def __init__(self, folder: Path) -> None:
        self.store = make_root(folder)
        self.good = make_run(self.store, "good", 0.3, settings={"loss.gamma": 2})
        self.bad = make_run(self.store, "bad", 0.6, settings={"loss.gamma": 4})
        self.twin = make_run(self.store, "twin", 0.301)

    def compare(self, *words: str, **options: object) -> Comparison:
        return compare_runs(self.store.root, words, num_resamples=200, **options)  # type: ignore[arg-type]

    def refuse(self, *words: str) -> str:
        with pytest.raises(CracksegError) as caught:
            self.compare(*words)
        return str(caught.value)


@pytest.fixture(scope="module")
def shared_bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("compare") / "project")


@pytest.fixture
def bench(shared_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return shared_bench


def _row(comparison: Comparison, metric: str) -> dict:
    return next(row for row in comparison.content["scores"] if row["metric"] == metric)


def test_a_clear_difference_is_shown_on_every_dataset_and_in_the_mean(bench: Bench) -> None:
    done = bench.compare("good", "bad")
    for metric in ("A/ods", "A/ois", "A/ap", "B/strict/ods", "B/symmetric/ods", "mean/ods"):
        row = _row(done, metric)
        difference = row["differences"][1]
        assert row["differences"][0] is None
        assert difference["high"] < 0
        assert difference["value"] == pytest.approx(row["values"][1] - row["values"][0])
    assert done.content["differing"] == {"loss.gamma": ["2", "4"]}
    assert "▼" in done.text
    assert done.content["remarks"] == []
    assert done.files == ()


def test_settings_that_no_score_follows_from_stand_apart(bench: Bench) -> None:
    make_run(bench.store, "elsewhere", 0.1, settings={"train.num_workers": 7, "loss.gamma": 3})
    counting, idle = bench.compare("good", "elsewhere").text.split("without effect on scores")
    assert "loss.gamma" in counting
    assert "train.num_workers" not in counting
    assert "train.num_workers" in idle


def test_a_difference_by_chance_is_not_called_one(bench: Bench) -> None:
    difference = _row(bench.compare("good", "twin"), "mean/ods")["differences"][1]
    assert difference["low"] <= 0 <= difference["high"]


def test_page_and_figures_are_written_and_logged(bench: Bench, tmp_path: Path) -> None:
    done = bench.compare("good", "bad", "twin", out_dir=tmp_path / "out", log=True, num_images=2)
    names = {path.name for path in done.files}
    assert names == {"comparison.md", "comparison.json", "pr_A.png", "pr_B.png", "images_A.png", "images_B.png"}
    page = (tmp_path / "out" / "comparison.md").read_text(encoding="utf-8")
    assert "![images_A](images_A.png)" in page
    assert json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8")) == done.content
    logged = bench.store.client.list_artifacts(str(done.logged_run), "comparison")
    assert {Path(artifact.path).name for artifact in logged} == names
    tags = bench.store.get_run(str(done.logged_run)).data.tags
    assert tags["compared.1"] == f"bad: {bench.bad}"
    # photograph, truth, three maps in two rows: wider than high
    height, width, _ = read_image(tmp_path / "out" / "images_A.png").shape
    assert width > 1.8 * height


def test_images_are_ranked_by_how_much_the_runs_differ_on_them(bench: Bench) -> None:
    table = bench.compare("good", "bad").content["images"]["A"]
    spreads = [row["spread"] for row in table]
    assert spreads == sorted(spreads, reverse=True)
    assert table[0]["spread"] == pytest.approx(abs(table[0]["good"] - table[0]["bad"]))
    assert "7" not in {row["stem"] for row in table}  # it shows no crack and has no F


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"evaluate.tolerance_px": 0}, "evaluate.tolerance_px 2 / 0"),
        ({"data.size_px": 256}, "data.size_px 512 / 256"),
    ],
)
def test_runs_scored_with_other_settings_get_no_interval(bench: Bench, settings: dict, said: str) -> None:
    name = f"other-{next(iter(settings)).replace('.', '-')}"
    make_run(bench.store, name, 0.1, settings=settings)
    done = bench.compare("good", name)
    assert all(difference is None for row in done.content["scores"] for difference in row["differences"])
    assert any(said in reason for reason in done.content["remarks"])
    assert said in done.text


def test_runs_on_another_data_version_get_no_interval(bench: Bench, tmp_path: Path) -> None:
    make_run(bench.store, "other-data", 0.1, data_md5="f" * 32)
    done = bench.compare("good", "other-data", "twin", out_dir=tmp_path / "out")
    ods = _row(done, "A/ods")
    assert ods["values"][1] is not None
    assert ods["differences"][1] is None
    assert ods["differences"][2] is not None
    assert any("another data version (test images of 00000000 / test images of ffffffff)" in r
               for r in done.content["remarks"])  # fmt: skip
    assert "other-data" not in done.content["images"]["A"][0]


def test_validation_images_that_are_scored_are_compared_too(bench: Bench) -> None:
    for name, noise in (("val-good", 0.3), ("val-bad", 0.6)):
        make_run(bench.store, name, noise, validated=True)
    done = bench.compare("val-good", "val-bad")
    assert _row(done, "A/ods")["differences"][1]["high"] < 0
    assert done.content["remarks"] == []
    assert any("other images" in remark for remark in bench.compare("good", "val-good").content["remarks"])


def test_a_mean_over_other_datasets_is_not_compared(bench: Bench) -> None:
    make_run(bench.store, "only-a", 0.1, datasets=("A",))
    done = bench.compare("good", "only-a")
    assert _row(done, "A/ods")["differences"][1] is not None
    assert _row(done, "mean/ods")["values"][1] is None
    assert _row(done, "mean/ods")["differences"][1] is None
    assert any("not scored on it: only-a" in reason for reason in done.content["remarks"])


def test_of_a_run_without_counts_only_ois_has_an_interval(bench: Bench) -> None:
    make_run(bench.store, "old", 0.6, with_counts=False)
    done = bench.compare("good", "old")
    assert _row(done, "A/ods")["differences"][1] is None
    whole = _row(bench.compare("good", "bad"), "A/ois")["differences"][1]
    assert _row(done, "A/ois")["differences"][1]["value"] == pytest.approx(whole["value"])
    assert any("old, A: no counts by image" in reason for reason in done.content["remarks"])


def test_false_alarms_are_compared_with_an_interval(bench: Bench) -> None:
    make_run(bench.store, "alarmed", 0.1, false_alarm=True)
    done = bench.compare("good", "alarmed")
    row = _row(done, "A/false_alarm_rate")
    assert row["values"] == [0, 1]
    assert row["differences"][1]["value"] == 1
    assert _row(done, "A/false_alarm_px_per_megapixel")["values"] == [0, pytest.approx(1e6 * 10 / 64**2)]
    assert "Of false alarms, less is better" in done.text
    assert "no crack-free photograph" not in done.text


def test_without_a_crack_free_photograph_the_scores_say_so_and_nothing_stands_in_the_way(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The last image is the one without a crack.
    monkeypatch.setattr(
        "tests.scored_runs.score_split", lambda samples, *a, **k: score_split(samples[:-1], *a, **k)
    )
    for name in ("cracked", "cracked too"):
        make_run(bench.store, name, 0.1, datasets=("A",))
    done = bench.compare("cracked", "cracked too")
    assert "False alarms on A: unknown, no crack-free photograph." in done.text
    assert not any("false_alarm" in row["metric"] for row in done.content["scores"])
    assert done.content["remarks"] == []


def test_runs_of_an_older_crackseg_are_not_said_to_lack_crack_free_photographs() -> None:
    runs = [ComparedRun(name, name, {}, {}, {"A/ods": 0.5}, {"A": "test 0"}) for name in ("old", "older")]
    text = format_comparison(runs, {}, [], {}, [])
    assert "False alarms on A: not recorded." in text
    assert "no crack-free photograph" not in text


def test_what_cannot_be_had_is_said_and_not_invented(bench: Bench, tmp_path: Path) -> None:
    make_run(bench.store, "bare", 0.3, with_counts=False, with_tables=False, in_cache=False)
    done = bench.compare("good", "bare", out_dir=tmp_path / "out")
    assert "images_A.png" not in {path.name for path in done.files}
    assert any("bare, A: no PR curve" in reason for reason in done.content["remarks"])
    make_run(bench.store, "elsewhere", 0.4, in_cache=False)
    done = bench.compare("good", "elsewhere", out_dir=tmp_path / "again")
    assert "images_A.png" in {path.name for path in done.files}
    assert any("elsewhere, A: maps are missing" in reason for reason in done.content["remarks"])


def test_without_any_photograph_in_the_cache_there_are_no_pictures(
    bench: Bench, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    settings = bench.store.root / ".dvc" / "config.local"
    request.addfinalizer(settings.unlink)
    settings.write_text(f"[cache]\n    dir = {tmp_path / 'empty'}\n")
    done = bench.compare("good", "bad", out_dir=tmp_path / "out")
    assert {path.name for path in done.files} == {"comparison.md", "comparison.json", "pr_A.png", "pr_B.png"}
    assert any("A: no pictures" in reason for reason in done.content["remarks"])


def test_runs_are_found_by_id_version_alias_and_name(bench: Bench) -> None:
    client = bench.store.client
    client.create_registered_model("crackseg")
    source = bench.store.root / "model"
    source.mkdir()
    client.create_model_version("crackseg", source.as_uri(), run_id=bench.good)
    second = client.create_model_version("crackseg", source.as_uri(), run_id=bench.good)
    note_results_run(client, second, bench.bad)  # scored in a child of the training's run
    client.set_registered_model_alias("crackseg", "candidate", "2")
    for words in (("1", "2"), ("v1", "@candidate"), ("models:/crackseg/1", "models:/crackseg@candidate"),
                  (bench.good, f"runs:/{bench.bad}"), ("good", "bad")):  # fmt: skip
        runs = bench.compare(*words).content["runs"]
        assert [run["run_id"] for run in runs] == [bench.good, bench.bad]
    assert "the same run" in bench.refuse("1", bench.good)
    assert "no version 9" in bench.refuse("1", "9")
    assert "no alias 'production'" in bench.refuse("1", "@production")


def test_of_several_runs_of_a_name_the_newest_with_scores_is_taken(bench: Bench) -> None:
    make_run(bench.store, "again", 0.2)
    newest = make_run(bench.store, "again", 0.3)
    bench.store.create_run("again")  # begun, and not scored yet
    done = bench.compare("good", "again")
    assert done.content["runs"][1]["run_id"] == newest
    assert any("3 runs are named again" in remark for remark in done.content["remarks"])


def test_mistakes_are_named_and_nothing_is_written(bench: Bench, tmp_path: Path) -> None:
    assert "at least two runs" in bench.refuse("good")
    assert "good is given twice" in bench.refuse("good", "bad", "good")
    said = bench.refuse("good", "bat")
    assert "no run or DVC experiment 'bat'" in said
    assert "did you mean bad" in said
    for path in ("gamma.json", "found/gamma", str(tmp_path)):  # e.g. behind --json, or in place of --out
        assert f"{path} looks like a path and is no run" in (said := bench.refuse("good", "bad", path))
        assert f"--out {path}" in said
    assert "no run or DVC experiment 'lr-0.001'" in bench.refuse("good", "lr-0.001")
    assert "is not in the store" in bench.refuse("good", "0123456789abcdef" * 2)
    bench.store.create_run("unscored")
    assert "has no scores" in bench.refuse("good", "unscored")
    with pytest.raises(CracksegError):
        compare_runs(bench.store.root, ["good", "nobody"], out_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_lost_artifacts_are_said_and_scores_stay(bench: Bench) -> None:
    run_id = make_run(bench.store, "lost", 0.2)
    shutil.rmtree(bench.store.root / "mlruns" / "artifacts" / run_id)
    done = bench.compare("good", "lost")
    assert _row(done, "A/ods")["values"][1] is not None
    assert any(reason.startswith("lost") for reason in done.content["remarks"])


def test_the_store_of_another_machine_needs_no_dvc(bench: Bench, request: pytest.FixtureRequest) -> None:
    dvc = bench.store.root / ".dvc"
    away = dvc.rename(bench.store.root / "dvc")
    request.addfinalizer(lambda: away.rename(dvc))
    assert _row(bench.compare("good", "bad"), "A/ods")["differences"][1] is not None


def test_a_comment_shows_the_main_scores_and_mentions_no_one(bench: Bench, request: pytest.FixtureRequest) -> None:
    """GitHub renders it: the main table is above all that unfolds, and `@production` would notify a user."""
    comment = bench.compare("good", "bad").comment
    shown, *unfolded = comment.split("<details>")
    metrics = [line.split("|")[1].strip() for line in shown.splitlines() if "▼" in line]
    assert metrics[:2] == ["A/ods", "B/ods"]
    assert "mean/ods" in metrics
    assert "A/strict/ods" not in shown
    settings, others, _explanation = unfolded
    assert "loss.gamma" in settings
    assert "A/strict/ods" in others
    # A table inside an HTML block is rendered only after an empty line.
    assert all("</summary>\n\n" in part and part.rstrip().endswith("\n\n</details>") for part in unfolded)
    assert "@" not in re.sub(
        r"`[^`]*`",
        "",
        format_comment([_alias("@production"), _alias("@candidate")], {}, [], ["@candidate: no maps"]),
    )


def _alias(name: str) -> ComparedRun:
    return ComparedRun(label=name, run_id="1" * 32, params={}, tags={}, metrics={}, images={})


def test_only_one_form_is_printed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bench.store.root)
    done = CliRunner().invoke(cli, ["compare", "good", "bad", "--markdown"])
    assert done.stdout.startswith("### `bad` compared with `good`\n\n| metric")
    refused = CliRunner().invoke(cli, ["compare", "good", "bad", "--markdown", "--json"])
    assert "either --markdown or --json" in str(refused.exception)
