"""The tags of a version: few in MLflow's table, none lost."""

from types import SimpleNamespace

import pytest

from crackseg.registry.version_tags import find_results_run, pack_tags, read_score, read_tags

TAGS = {"A/ods": "0.9000", "mean/ods": "0.8", "architecture": "unet", "data.md5": "ab", "weights_sha256": "cd"}


def test_the_table_has_few_tags_and_all_can_be_read() -> None:
    packed = pack_tags(TAGS)
    assert list(packed) == ["crackseg", "mean/ods"]
    assert read_tags(SimpleNamespace(tags=packed)) == TAGS


def test_a_version_of_a_former_release_is_read() -> None:
    assert read_tags(SimpleNamespace(tags=TAGS)) == TAGS
    assert read_tags(SimpleNamespace(tags={"mean/ods": "0.8", "crackseg": '{"data.md5": "ab"}'})) == {
        "mean/ods": "0.8",
        "data.md5": "ab",
    }
    assert find_results_run(SimpleNamespace(tags={"results.run_id": "r"})) == "r"


@pytest.mark.parametrize("text", ["{", "[]", "3"])
def test_a_tag_that_was_changed_by_hand_loses_only_itself(text: str) -> None:
    assert read_tags(SimpleNamespace(tags={"architecture": "unet", "crackseg": text})) == {"architecture": "unet"}


def test_a_score_that_is_no_number_is_as_absent() -> None:
    assert read_score(TAGS, "A/ods") == 0.9
    assert read_score(TAGS | {"A/ods": "good"}, "A/ods") is None
    assert read_score(TAGS, "B/ods") is None
