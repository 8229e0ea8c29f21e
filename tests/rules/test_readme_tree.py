"""The tree in the README is the tree of the package, in the order in which imports point."""

import re

from crackseg.lineage import PACKAGE
from tests.rules.test_import_direction import ORDER

README = (PACKAGE.parents[1] / "README.md").read_text(encoding="utf-8")
TREE = re.search(r"^src/crackseg/\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def _lines() -> list[tuple[int, str, str]]:
    """Depth, name and text of each folder, from the top; the first line names what lies beside the folders."""
    assert TREE is not None
    _beside, *lines = TREE.group(1).splitlines()
    found = [re.fullmatch(r"([│ ├└─]+)(\w+)/ +(\S.*)", line) for line in lines]
    return [(len(match[1]) // 4, match[2], match[3]) for match in found if match]


def test_every_folder_has_a_line() -> None:
    path: list[str] = []
    shown = set()
    for depth, name, _said in _lines():
        path = [*path[: depth - 1], name]
        shown.add("/".join(path))
    folders = {f.parent.relative_to(PACKAGE).as_posix() for f in PACKAGE.rglob("*.py")} - {".", "params"}
    assert shown == folders


def test_folders_stand_in_the_order_of_imports() -> None:
    top = [name for depth, name, _said in _lines() if depth == 1]
    assert top == [name for name in ORDER if (PACKAGE / name).is_dir() and name != "params"]


def test_modules_beside_the_folders_are_named() -> None:
    assert TREE is not None
    named = set(re.findall(r"\w+", TREE.group(1).splitlines()[0].partition("    used by")[0]))
    beside = {path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("__")} | {"params"}
    assert named == beside
