"""`python -m tests.faults.damaged_input`: more of the damaged input that the tests try, with other seeds.

It prints a line for each failure, a table and the memory; the exit code is 1 if anything failed.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.faults.fuzz import fuzz_annotations, fuzz_http, fuzz_images, fuzz_imports, fuzz_page, fuzz_params
from tests.tiny_model import make_model
from tests.unit.serving.test_http import open_server


def main() -> int:
    """Try so much of each kind; print what was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.damaged_input", description=__doc__)
    parser.add_argument("--number", type=int, default=350, help="of each of the six kinds")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    number, seed = options.number, options.seed
    with tempfile.TemporaryDirectory(prefix="crackseg-damaged-") as scratch:
        folder = Path(scratch)
        analyzer = make_model(folder / "model")
        (folder / "server").mkdir()
        server = open_server(folder / "model", folder / "server")
        kinds: dict[str, Callable[[], Iterator[str]]] = {
            "images": lambda: fuzz_images(number, seed, folder / "images", analyzer),
            "uploads on the page": lambda: fuzz_page(number, seed, folder / "page", analyzer),
            "datasets": lambda: fuzz_imports(number, seed, folder / "datasets"),
            "annotations": lambda: fuzz_annotations(number, seed, folder / "annotations"),
            "params.yaml": lambda: fuzz_params(number, seed, folder / "params"),
            "requests": lambda: fuzz_http(number, seed, server),
        }
        rows, failed = [], 0
        for name, fuzz in kinds.items():
            started = time.process_time()
            wrong = [*filter(None, fuzz())]
            print(*wrong, sep="\n", end="\n" * bool(wrong), flush=True)
            rows.append(f"| {name} | {number} | {len(wrong)} | {time.process_time() - started:.0f} |")
            failed += len(wrong)
    print("\n| damaged | tried | failed | CPU seconds |\n|---|---:|---:|---:|", *rows, sep="\n")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{number * len(kinds)} inputs of seed {seed}, {failed} failures, at most {most:.1f} GB of memory")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
