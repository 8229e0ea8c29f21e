"""Measure all rows, print a table, write results.json and the plot: ``python -m benchmarks [--quick] [ROW …]``."""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.measure import ROOT, Effort, Row, run_family

# A module each. The first are run one after the other, since they use every core and the clock. The others count the
# processor time of one core, on both sides of a row, so two of them run at once; the longest begin.
_OF_EVERY_CORE = ("inference", "train", "tiled", "folder", "first_result", "exported", "startup")
_OF_ONE_CORE = ("growth", "train_to", "store", "scoring", "augment")
_FAMILIES = (*_OF_EVERY_CORE, *_OF_ONE_CORE)
_PACKAGES = (
    "torch", "torchvision", "openvino", "onnxruntime", "opencv-python-headless", "numpy", "scikit-learn",
    "albumentations", "mlflow", "dvc",
)  # fmt: skip


def main() -> None:
    """Measure; ends with 1 if a family failed, after all others were measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "families", nargs="*", metavar="FAMILY", help=f"some of {', '.join(_FAMILIES)}; all if none"
    )
    parser.add_argument("--quick", action="store_true", help="the same rows with fewer repeats")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks", help="folder of results.json and results.png"
    )
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.families if name not in _FAMILIES]:
        parser.error(f"no family {', '.join(unknown)}; there are {', '.join(_FAMILIES)}")
    rows, failed = _measure(arguments.families or list(_FAMILIES), Effort(arguments.quick))
    hardware = _describe_hardware()
    print(_table(rows), flush=True)
    kept = _read_rows(arguments.out, hardware, quick=arguments.quick) if arguments.families else []
    measured = {row.name: row for row in rows}
    merged = [measured.pop(row.name, row) for row in kept] + list(measured.values())
    _write(arguments.out, merged, hardware, quick=arguments.quick)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def _measure(families: Sequence[str], effort: Effort) -> tuple[list[Row], list[str]]:
    failed = []

    def measure(family: str) -> list[Row]:
        start = time.monotonic()
        try:
            return run_family(family, effort)
        except Exception:  # one peer that does not install must not cost the other rows
            traceback.print_exc()
            failed.append(family)
            return []
        finally:
            print(f"{family}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)

    of_every_core = [measure(family) for family in _OF_EVERY_CORE if family in families]
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as two:
        of_one_core = list(two.map(measure, [family for family in _OF_ONE_CORE if family in families]))
    return list(itertools.chain(*of_every_core, *of_one_core)), failed


def _table(rows: Sequence[Row]) -> str:
    lines = ["| row | ours | peer | | ratio | asked | |", "|---|---:|---:|---|---:|---:|---|"]
    for row in rows:
        asked = "" if row.target is None else f"{row.target:.3g}"
        mark = "" if row.target is None or row.ratio >= row.target else " missed"
        lines.append(
            f"| {row.name} | {row.ours:.4g} | {row.peer:.4g} {row.unit} | {row.peer_name} | {row.ratio:.3g} | "
            f"{asked}{mark} | {row.note} |"
        )
    return "\n".join(lines)


def _read_rows(folder: Path, hardware: str, *, quick: bool) -> list[Row]:
    """The rows of an earlier run on the same machine: what is measured again takes the place of one of them."""
    path = folder / "results.json"
    if not path.is_file():
        return []
    content = json.loads(path.read_text(encoding="utf-8"))
    if (content["hardware"], content["quick"]) != (hardware, quick):
        return []
    return [
        Row(
            row["name"], row["ours"], row["peer"], row["peer_name"], row["unit"],
            content["notes"][row["name"]], content["targets"].get(row["name"]),
        )
        for row in content["rows"]
    ]  # fmt: skip


def _write(folder: Path, rows: Sequence[Row], hardware: str, *, quick: bool) -> None:
    from benchmarks.plot import draw

    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "hardware": hardware,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "quick": quick,
        "versions": {"python": platform.python_version()} | {name: _installed(name) for name in _PACKAGES},
        "rows": [
            {
                "name": row.name,
                "ours": row.ours,
                "peer": row.peer,
                "peer_name": row.peer_name,
                "unit": row.unit,
                "ratio": row.ratio,
            }
            for row in rows
        ],
        "targets": {row.name: row.target for row in rows if row.target is not None},
        "notes": {row.name: row.note for row in rows},
    }
    (folder / "results.json").write_text(
        json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    draw(rows, hardware, folder / "results.png")
    print(f"wrote {folder / 'results.json'} and {folder / 'results.png'}", file=sys.stderr)


def _describe_hardware() -> str:
    import torch

    from crackseg.devices import choose_device, describe_device

    instructions = torch.backends.cpu.get_cpu_capability()
    return f"{describe_device(choose_device('auto'))}, {instructions}"


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()
