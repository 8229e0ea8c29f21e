"""What the documents say: their pages, their blocks of code, and the commands in them.

A block of commands (```console) or of Python is run by test_blocks_run.py, or has a reason why not in the line before:

    <!-- not run: trains for hours -->
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
LANGUAGES = {"console", "python", "yaml", "json", "text"}
RUNNABLE = {"console", "python"}

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\S*)\s*$")
_REASON = re.compile(r"^ *<!-- not run: (?P<reason>.+) -->$")
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: path below the repository's root.
        line: number of its first line, for messages.
        language: what follows the opening fence, "" if nothing does.
        text: what is between the fences, its indent removed.
        reason: why it is not run, None if nothing is said.
    """

    page: str
    line: int
    language: str
    text: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def list_pages() -> list[str]:
    """README, CONTRIBUTING and every page of docs/, in the order of the site's nav, then what is not in it."""
    own = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").rglob("*.md"))]
    ordered = [f"docs/{page}" for page in nav_pages() if f"docs/{page}" in own]
    return ["README.md", "CONTRIBUTING.md", *ordered, *(page for page in own if page not in ordered)]


def nav_pages() -> list[str]:
    """The pages in the site's nav, from the top to the bottom."""
    config = YAML(typ="safe", pure=True).load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))

    def walk(entry: Any) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        for child in entry if isinstance(entry, list) else entry.values() if isinstance(entry, dict) else ():
            yield from walk(child)

    return list(walk(config["nav"]))


def read_blocks(page: str) -> list[Block]:
    """Every fenced block of a page, from the top to the bottom."""
    blocks: list[Block] = []
    opened: re.Match[str] | None = None
    start, reason, inside = 0, None, []
    for number, line in enumerate((ROOT / page).read_text(encoding="utf-8").splitlines(), start=1):
        fence = _FENCE.match(line)
        if opened is None:
            if fence:
                opened, start, inside = fence, number + 1, []
            elif line.strip():
                found = _REASON.match(line)
                reason = found["reason"] if found else None
        elif fence and not fence["language"]:
            blocks.append(Block(page, start, opened["language"], "\n".join(inside), reason))
            opened, reason = None, None
        else:
            inside.append(line.removeprefix(opened["indent"]))
    assert opened is None, f"{page}: the block that begins in line {start} is not closed"
    return blocks


def all_blocks() -> list[Block]:
    """The blocks of all pages."""
    return [block for page in list_pages() for block in read_blocks(page)]


def commands_of(block: Block) -> list[str]:
    """The commands of a console block, continued lines joined."""
    joined = re.sub(r"(\\|(?<=\|))\n", " ", block.text)
    return [line.strip() for line in joined.splitlines() if line.strip() and not line.strip().startswith("#")]


def words_of(command: str) -> list[str]:
    """The words of a command without its comment; of a pipe or list, those of its last part."""
    words = shlex.split(command, comments=True)
    for operator in ("|", "&&", ";"):
        if operator in words:
            words = words[len(words) - words[::-1].index(operator) :]
    return words


def inline_code(page: str) -> list[str]:
    """Every `code` in the running text of a page, in order."""
    text = re.sub(r"^( *)```.*?^\1```\s*$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.M | re.S)
    return [" ".join(code.split()) for code in _INLINE.findall(text)]
