"""Tables as people and programs read them."""

import csv
import os
from pathlib import Path

import pandas as pd
import pytest

from crackseg.errors import CracksegError
from crackseg.files import (
    format_csv,
    format_markdown,
    frame_to_markdown,
    keep_newest,
    sole_writer,
    write_bytes,
    write_csv,
)


def test_a_bar_or_a_line_break_in_a_cell_does_not_break_the_table() -> None:
    table = format_markdown(["name", "says"], [["a|b", "one\ntwo"]], "lr")
    assert table == "| name | says |\n|---|---:|\n| a\\|b | one<br>two |\n"


def test_padded_columns_stand_below_each_other() -> None:
    table = format_markdown(["a", "long title"], [["1", "2"], ["333", "4"]], padded=True)
    assert {len(line) for line in table.splitlines()} == {len("| 333 | long title |")}


def test_numbers_of_a_frame_stand_to_the_right_and_missing_ones_are_dashes() -> None:
    frame = pd.DataFrame({"name": ["x"], "score": [1.23456], "none": [float("nan")], "count": [3]})
    assert frame_to_markdown(frame).splitlines()[1:] == ["|---|---:|---:|---:|", "| x | 1.235 | – | 3 |"]


def test_csv_rows_are_read_back_as_they_were(tmp_path: Path) -> None:
    rows = [{"name": 'a "quoted", one', "size": 3}, {"name": "two\nlines"}, {"size": 1.25}]
    write_bytes(tmp_path / "t.csv", (line.encode() for line in format_csv(("name", "size"), rows)))
    with (tmp_path / "t.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert read == [{"name": str(row.get("name", "")), "size": str(row.get("size", ""))} for row in rows]


def test_a_table_that_fails_half_way_leaves_the_old_one(tmp_path: Path) -> None:
    write_bytes(tmp_path / "t.csv", b"old\n")
    with pytest.raises(ValueError, match="unknown"):
        write_bytes(tmp_path / "t.csv", (line.encode() for line in format_csv(("a",), [{"a": 1}, {"unknown": 2}])))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old\n"]


@pytest.mark.parametrize(("digits", "text"), [(6, "0.123457"), (9, "0.123456789"), (None, "0.12345678912345")])
def test_csv_keeps_the_digits_that_were_asked_for(tmp_path: Path, digits: int | None, text: str) -> None:
    write_csv(pd.DataFrame({"x": [0.12345678912345]}), tmp_path / "t.csv", digits=digits)
    assert (tmp_path / "t.csv").read_bytes() == f"x\n{text}\n".encode()


def test_a_second_writer_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    with (
        sole_writer(tmp_path / "lock", "first"),
        pytest.raises(CracksegError, match="wait for it"),
        sole_writer(tmp_path / "lock", "wait for it"),
    ):
        pass
    with sole_writer(tmp_path / "lock", "free again"):
        pass


def test_a_cache_keeps_the_folders_that_were_used_last(tmp_path: Path) -> None:
    for age, name in enumerate(["d", "c", "b", "a"]):
        (tmp_path / name / "inside").mkdir(parents=True)
        os.utime(tmp_path / name, (1000 + age, 1000 + age))
    keep_newest(tmp_path, "d", 3)  # used again: the oldest is the newest now
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "d"}
    keep_newest(tmp_path / "new", "first", 3)
    assert (tmp_path / "new" / "first").is_dir()
    assert (tmp_path / "d" / "inside").is_dir()


def test_an_error_names_the_file_that_was_asked_for_and_not_the_one_beside_it(tmp_path: Path) -> None:
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="directory") as caught:
        write_bytes(tmp_path / "folder", b"content")
    assert (caught.value.filename, caught.value.filename2) == (str(tmp_path / "folder"), None)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
