"""Every block of commands in the documents runs, in one project with a small sample, page after page.

What stands for a user's own files is prepared: `~/Downloads/DeepCrack-datasets`, `~/bridge7`, `photo.jpg`,
`photographs/` and lists of a split. Two versions are registered and were promoted, as after some weeks of work.
"""

from __future__ import annotations

import shlex
import shutil
import socket
import sys
from pathlib import Path

import cv2
import pytest

from crackseg.data.synthetic.sample import write_sample
from tests.docs.pages import Block, all_blocks, commands_of, read_blocks
from tests.pipeline.conftest import Project, make_project

# Commands that go on until they are stopped, and the port that they listen on.
SERVERS = {"crackseg ui": 5000, "crackseg serve": 5001}
RUN = [block for block in all_blocks() if block.language in ("console", "python") and block.reason is None]
# These leave other data and a version without scores behind, with which a gate has nothing to compare.
LAST = ("docs/your-own-photographs.md", "docs/datasets.md", "docs/search.md")
PAGES = sorted(dict.fromkeys(block.page for block in RUN), key=LAST.__contains__)

# In bash: a server runs beside the commands that follow and ends with the page; a gate may say no; an earlier page may
# have committed the same.
PREAMBLE = """
set -e -o pipefail -m
servers=
trap 'for pid in $servers; do kill -- -$pid; done' EXIT
serve() {
  local port=$1; shift
  "$@" > server.log 2>&1 &
  local pid=$!
  servers="$servers $pid"
  until (exec 3<> /dev/tcp/127.0.0.1/$port) 2> /dev/null; do
    kill -0 $pid 2> /dev/null || { cat server.log; exit 1; }
    sleep 0.2
  done
}
gate() {
  local said status=0
  said=$("$@" 2>&1) || status=$?
  echo "$said"
  [ $status = 0 ] || [[ $said == *"gate FAILED"* || $said == *"is in production already"* ]]
}
commit() { git diff --quiet HEAD -- "${@: -1}" || "$@"; }
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("documents")
    project = make_project(folder / "project")
    prepare_files_of_a_user(folder / "home", project.folder)
    project.environment |= {"HOME": str(folder / "home"), "MPLBACKEND": "Agg"}
    project.run("dvc", "repro", timeout_s=1700)
    project.commit("First results")
    project.run("crackseg", "promote", "1", "--force", "--reason", "tiny, and worse than the shipped model")
    project.run("dvc", "exp", "run", "-n", "another-seed", "-S", "train.seed=1", timeout_s=1700)
    project.commit("Another seed")
    project.run("crackseg", "promote", "2", "--force", "--reason", "a second one, to go back from", timeout_s=1700)
    return project


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", PAGES)
def test_commands_of_page_run(page: str, project: Project) -> None:
    script = PREAMBLE + "\n".join(script_of(block) for block in read_blocks(page) if block in RUN)
    project.run("bash", "-c", script, timeout_s=1700)


def test_blocks_are_run_on_most_pages() -> None:
    assert len(PAGES) > 10


def script_of(block: Block) -> str:
    """The block as bash: servers in the background and on free ports, gates that may say no."""
    if block.language == "python":
        return f"python - <<'END'\n{block.text}\nEND"
    lines = []
    for command in commands_of(block):
        started = next((name for name in SERVERS if command.startswith(name)), None)
        if started:
            port = free_port()
            words = " ".join(shlex.split(command, comments=True))
            lines.append(f"export PORT_{SERVERS[started]}={port}\nserve {port} {words} --port {port}")
        elif command.startswith("crackseg promote"):
            lines.append(f"gate {command}")
        elif command.startswith("git commit"):
            lines.append(f"commit {command}")
        else:
            for port in SERVERS.values():
                command = command.replace(f"127.0.0.1:{port}", f"127.0.0.1:$PORT_{port}")
            lines.append(command)
    return "\n".join(["set -x", *lines, "set +x"])


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def prepare_files_of_a_user(home: Path, project: Path) -> None:
    """Write what the documents' commands name, with scenes of the sample in the place of photographs."""
    bundle = home / "Downloads" / "DeepCrack-datasets"
    made = home / "made"
    write_sample(made, seed=2, counts={"CrackTree260": (6, 2, 2), "CRKWH100": (0, 0, 2)}, size=(96, 96))
    for name in ("CrackTree260", "CRKWH100"):
        shutil.copytree(made / name / "images", bundle / name)
        shutil.copytree(made / name / "masks", bundle / f"{name}_gt")
    shutil.rmtree(made)
    write_sample(made, seed=3, counts={"CrackTree260": (10, 0, 0)}, size=(96, 96))
    bridge = home / "bridge7"
    shutil.copytree(made / "CrackTree260" / "images", bridge / "images")
    shutil.copytree(made / "CrackTree260" / "masks", bridge / "masks")
    photographs = sorted((bridge / "images").iterdir())
    stems = [path.stem for path in photographs]
    for split, names in (("train", stems[:6]), ("val", stems[6:8]), ("test", stems[8:])):
        (project / f"{split}.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    shutil.copytree(bridge / "images", project / "photographs")
    cv2.imwrite(str(project / "photo.jpg"), cv2.imread(str(photographs[0])))
    (project / ".venv").symlink_to(sys.prefix)
    (project / "mlflow.db").symlink_to(Path("mlruns") / "mlflow.db")
    (project / ".git" / "info" / "exclude").write_text(
        "/photo*\n/*.txt\n/server.log\n/mlflow.db\n/.venv\n", encoding="utf-8"
    )
