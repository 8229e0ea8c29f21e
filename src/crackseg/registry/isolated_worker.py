"""Load one version of the registered model in a separate process, as a user without the repository does.

The gate runs this file by its path, in isolated mode, and it imports nothing of crackseg: it loads the code
next to the version's weights. Two versions in one process would share the code of the first.

argv: the version's folder. A command is a line of JSON on standard input, its answer a line on standard output.
"""

import atexit
import base64
import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO


def main() -> None:
    """Load the version, report the result, and answer commands until the input ends."""
    atexit.register(gc.freeze)  # a last look for cycles in all that was imported would take a second
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # output of the model must not mix with the answers
    _hide_installed_crackseg()
    model_dir = Path(sys.argv[1])
    try:
        model, hello = _load(model_dir)
    except Exception as error:  # any exception of the version's code is an answer
        _say(answers, {"error": _word(error)})
        return
    _say(answers, hello)
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer: dict[str, Any]
            if command["do"] == "time":
                answer = _time(model, command["images"])
            else:
                answer = _predict(model, command["images"], command["maps"])
        except Exception as error:
            answer = {"error": _word(error)}
        _say(answers, answer)


def _hide_installed_crackseg() -> None:
    """Remove folders that hold the package from sys.path, and the finders of an editable installation."""
    sys.path[:] = [entry for entry in sys.path if not _leads_to_source(Path(entry or "."))]
    sys.meta_path[:] = [f for f in sys.meta_path if "__editable__" not in getattr(f, "__module__", "")]


def _leads_to_source(folder: Path) -> bool:
    return (folder / "crackseg").is_dir() and folder.name != "site-packages"


def _load(model_dir: Path) -> tuple[Any, dict[str, Any]]:
    start = time.perf_counter()
    import mlflow

    model = mlflow.pyfunc.load_model(str(model_dir))
    seconds = time.perf_counter() - start
    files = {name: getattr(m, "__file__", None) for name, m in list(sys.modules.items())}
    ours = {n: f for n, f in files.items() if f and (n == "crackseg" or n.startswith("crackseg."))}
    strangers = sorted(n for n, f in ours.items() if not Path(f).resolve().is_relative_to(model_dir.resolve()))
    if strangers or not ours:
        what = f"{strangers[0]} came from {ours[strangers[0]]}" if strangers else "it holds no code of crackseg"
        raise RuntimeError(f"the version does not run on its own code: {what}")
    signature = model.metadata.signature
    schemas = (
        {} if signature is None else {k: v for k, v in signature.to_dict().items() if k in ("inputs", "outputs")}
    )
    return model, {"load_seconds": seconds, "signature": schemas}


def _predict(model: Any, images: list[str], maps: list[str]) -> dict[str, Any]:
    """Predict image files and write each one's probability map, a 16-bit PNG, to the path at the same index."""
    table = model.predict(_read(images), params={"return_probability": True})
    for text, path in zip(table["probability"], maps, strict=True):
        Path(path).write_bytes(base64.b64decode(text))
    figures = [name for name in ("crack_fraction", "crack_length_px", "score") if name in table]
    return {"rows": [{name: float(row[name]) for name in figures} for _, row in table.iterrows()]}


def _time(model: Any, images: list[str]) -> dict[str, float]:
    """Measure the seconds for each image, one at a time."""
    tables = [_read([image]) for image in images]
    start = time.perf_counter()
    for table in tables:
        model.predict(table)
    return {"seconds_per_image": (time.perf_counter() - start) / len(tables)}


def _read(images: list[str]) -> Any:
    import pandas as pd

    return pd.DataFrame({"image": [Path(path).read_bytes() for path in images]})


def _say(answers: TextIO, content: dict[str, Any]) -> None:
    answers.write(json.dumps(content) + "\n")
    answers.flush()


def _word(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0][:300]}"


if __name__ == "__main__":
    main()
