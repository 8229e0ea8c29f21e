"""What whoever carries it on relies on: the targets of make, the hooks, the citation."""

import re
import subprocess

from ruamel.yaml import YAML

import crackseg
from tests.docs.pages import ROOT


def load(name: str) -> dict:
    return YAML(typ="safe", pure=True).load((ROOT / name).read_text(encoding="utf-8"))


def test_make_alone_lists_every_target() -> None:
    listed = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (phony,) = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {line.split()[0] for line in listed.splitlines()} == set(phony.split())


def test_hooks_are_local_and_check_what_make_lint_checks() -> None:
    (repository,) = load(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    hooks = {hook["entry"].removeprefix(".venv/bin/").removesuffix(" --fix") for hook in repository["hooks"]}
    lint = (ROOT / "Makefile").read_text(encoding="utf-8").split("\nlint:")[1].split("\n\n")[0]
    linted = (re.sub(r"( --check)? \.$", "", command) for command in re.findall(r"\$\(BIN\)/(.+)", lint))
    assert hooks == set(linted)


def test_citation_names_this_version_and_the_paper() -> None:
    citation = load("CITATION.cff")
    assert citation["version"] == crackseg.__version__
    assert citation["references"][0]["doi"] == "10.1155/2022/3712289"
