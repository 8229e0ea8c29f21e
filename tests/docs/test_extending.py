"""The page about extending: its edits, made in a copy of the package, are all that a new model and a new loss need."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.docs.pages import ROOT, read_blocks
from tests.warm_commands import warm_python

TRAIN_A_STEP = """
import sys
from pathlib import Path
import torch
from crackseg.lineage import describe_loss
from crackseg.models import build_model
from crackseg.models.weights_file import load_network, save_weights
from crackseg.params import change_params, flatten_params, load_params
from crackseg.training.losses import build_loss

changes = {"model.architecture": "shallow", "model.width": 8, "loss.name": "squared_error"}
params = change_params(load_params(Path(sys.argv[1])), changes, source="-S")
network = build_model(**dict(params.model))
loss = build_loss(**dict(params.loss))(network(torch.rand(2, 3, 33, 49)), torch.zeros(2, 1, 33, 49))
loss.backward()
assert all(parameter.grad is not None for parameter in network.parameters())
save_weights(Path(sys.argv[2]), network, spec=dict(params.model), extra={})
load_network(Path(sys.argv[2]), expected_architecture="shallow")
print(describe_loss(flatten_params(params)), network.body.output.in_channels)
"""


def edit(root: Path, text: str) -> None:
    """Write a block to the file that its first line names: a new one, or code above a table and a row into it."""
    named, content = text.split("\n", 1)
    path, _, table = named.removeprefix("# ").partition(", ")
    if not (root / path).exists():
        (root / path).write_text(content + "\n", encoding="utf-8")
        return
    code, row = (
        re.split(r"^(?=    \"\w+\": )", content, maxsplit=1, flags=re.MULTILINE) if table else (content, "")
    )
    source = (root / path).read_text(encoding="utf-8")
    opening = re.search(rf"^{table or 'LOSSES'}: .+ = {{\n", source, re.MULTILINE)
    assert opening, f"{path} has no table {table}"
    changed = f"{source[: opening.start()]}{code}\n\n{opening[0]}{row}\n{source[opening.end() :]}"
    (root / path).write_text(changed, encoding="utf-8")


def test_two_edits_make_a_model_and_two_a_loss(tmp_path: Path) -> None:
    shutil.copytree(
        ROOT / "src" / "crackseg", tmp_path / "src" / "crackseg", ignore=shutil.ignore_patterns("__pycache__")
    )
    blocks = [block for block in read_blocks("docs/extending.md") if block.language == "python"]
    assert len(blocks) == 4
    for block in blocks:
        edit(tmp_path, block.text)
    found = subprocess.run(
        [warm_python(), "-c", TRAIN_A_STEP, str(ROOT / "params.yaml"), str(tmp_path / "weights.pt")],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == ["squared_error", "8"]
