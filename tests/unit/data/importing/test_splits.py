from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crackseg.data.importing.splits import add_validation_split, assign_splits, read_split_lists
from crackseg.errors import CracksegError


def sizes(splits: dict[str, str]) -> tuple[int, int, int]:
    values = list(splits.values())
    return values.count("train"), values.count("val"), values.count("test")


def test_cracktree260_is_divided_as_in_the_paper() -> None:
    splits = assign_splits([str(n) for n in range(6192, 6452)], seed=0)
    assert sizes(splits) == (200, 20, 40)


@given(st.sets(st.text(min_size=1, max_size=8), min_size=1, max_size=60), st.integers(0, 5), st.randoms())
def test_split_does_not_depend_on_the_order_in_which_a_disk_lists_files(stems, seed, random) -> None:
    shuffled = sorted(stems)
    random.shuffle(shuffled)
    assert assign_splits(shuffled, seed=seed) == assign_splits(sorted(stems), seed=seed)


def test_split_is_the_same_on_every_machine() -> None:
    splits = assign_splits(["a", "b", "c", "d", "e"], counts=(3, 1, 1), seed=7)
    assert splits == {"a": "train", "b": "test", "c": "train", "d": "train", "e": "val"}


def test_another_seed_gives_another_split() -> None:
    stems = [str(n) for n in range(50)]
    assert assign_splits(stems, seed=0) != assign_splits(stems, seed=1)


@given(st.integers(3, 400), st.tuples(*[st.integers(0, 300)] * 3).filter(any))
def test_shares_are_the_largest_remainders_and_no_wanted_split_is_empty(total, counts) -> None:
    got = sizes(assign_splits([str(n) for n in range(total)], counts=counts, seed=0))
    assert sum(got) == total
    for size, count in zip(got, counts, strict=True):
        quota = total * count / sum(counts)
        if count:
            assert size >= 1
            # Each of the other two splits may have had to be given one image of its own.
            assert quota - 3 < size < quota + 1 + (quota < 1)
        else:
            assert size == 0


@pytest.mark.parametrize(
    ("stems", "counts"), [(["a", "b"], (0, 0, 0)), (["a", "b"], (-1, 1, 1)), (["a", "a"], (1, 1, 1))]
)
def test_impossible_division_is_refused(stems, counts) -> None:
    with pytest.raises(CracksegError):
        assign_splits(stems, counts=counts, seed=0)


def test_dataset_with_train_and_test_gets_validation_images_out_of_train_only() -> None:
    splits = {f"a{n}": "train" for n in range(44)} | {f"b{n}": "test" for n in range(10)}
    divided = add_validation_split(splits, seed=0)
    assert sizes(divided) == (40, 4, 10)
    assert all(divided[f"b{n}"] == "test" for n in range(10))
    assert add_validation_split(divided, seed=1) == divided


def write_lists(folder: Path, **lists: str) -> dict[str, Path]:
    for split, text in lists.items():
        (folder / f"{split}.txt").write_text(text, encoding="utf-8")
    return {split: folder / f"{split}.txt" for split in lists}


def test_lists_may_name_stems_files_paths_or_pairs(tmp_path: Path) -> None:
    lists = write_lists(
        tmp_path,
        train="\ufeff# mine\nA1\n\nimg/b2.JPG\n",
        val="c.3\r\nwall 4.png\r\n",
        test="img\\e.jpg gt\\e.png\n",
    )
    splits = read_split_lists(lists, ["a1", "b2", "c.3", "wall 4", "e"])
    assert splits == {"a1": "train", "b2": "train", "c.3": "val", "wall 4": "val", "e": "test"}


def test_all_mistakes_in_lists_are_named_at_once(tmp_path: Path) -> None:
    lists = write_lists(tmp_path, train="a\nb\nnobody\n", test="b\n")
    with pytest.raises(CracksegError) as error:
        read_split_lists(lists, ["a", "b"])
    assert "train.txt, line 3" in str(error.value)
    assert "nobody" in str(error.value)
    assert "test.txt, line 1" in str(error.value)


def test_image_in_no_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(CracksegError, match=r"1 image in no list: forgotten"):
        read_split_lists(write_lists(tmp_path, train="a\n"), ["a", "forgotten"])


def test_missing_or_binary_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(CracksegError, match=r"none\.txt"):
        read_split_lists({"train": tmp_path / "none.txt"}, ["a"])
    (tmp_path / "train.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CracksegError, match="not a text file"):
        read_split_lists({"train": tmp_path / "train.txt"}, ["a"])
