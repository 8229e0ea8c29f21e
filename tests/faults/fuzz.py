"""Seeded damage of images, annotations, params.yaml and requests; each must be read, or refused in a sentence."""

from __future__ import annotations

import base64
import io
import json
import random
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from crackseg.data.image_files import find_photographs
from crackseg.data.images.files import read_mask, read_stored_map
from crackseg.data.importing.importer import import_datasets
from crackseg.errors import CracksegError
from crackseg.inference.detector import CrackAnalyzer
from crackseg.inference.files import predict_files
from crackseg.params import load_params
from crackseg.serving.page.session import Session
from tests.odd_pictures import READABLE
from tests.unit.data.importing.raw_sources import make_mask, make_photo

PARAMS = Path(__file__).parents[2] / "params.yaml"
MAX_S = 30.0
_VALUES = (
    "null", "-1", "0", "1e400", "nan", ".inf", "''", "[]", "{}", "[1, 2]", "true", "abc", "99999999999999999999", "~",
    "!!x y",
    "&a *a", "'\\0'", "1_0", "0x10", "2026-01-01", "-0.0", "'scenes'", "\t", "- x", "? y", "{a: b: c}", '"\\ud800"',
)  # fmt: skip


def damage(content: bytes, rng: random.Random) -> bytes:
    """Flip bits, cut, repeat, overwrite or insert a piece; most damage lies near the head, where formats are read."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        if not data:
            break
        at = min(int(rng.expovariate(3 / len(data))), len(data) - 1)
        size = rng.choice((1, 1, 1, 2, 4, 16))
        kind = rng.randrange(6)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            data[at : at + size] = rng.choice((b"\xff", b"\x00", b"\x7f")) * size
        elif kind == 3:
            data[at : at + size] = rng.randbytes(size)
        elif kind == 4:
            data[at:at] = data[at : at + 64]
        else:
            del data[at : at + size]
    return bytes(data)


def make_pictures() -> dict[str, bytes]:
    """Small valid pictures of every kind that Pillow writes, and of odd modes."""
    pictures = {name: make() for name, make in READABLE.items()}
    photo = Image.fromarray(make_photo(1, (90, 70)))
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "F", "I"):
        image = (
            Image.fromarray(np.asarray(photo.convert("L"), np.uint16)) if mode == "I;16" else photo.convert(mode)
        )
        for kind in ("png", "jpg", "tif", "bmp", "webp", "gif", "ppm", "tga", "jp2", "ico", "pcx", "sgi"):
            stream = io.BytesIO()
            try:
                Image.init()
                image.save(stream, Image.EXTENSION[f".{kind}"])
            except (OSError, KeyError, ValueError):
                continue
            pictures[f"{mode.replace(';', '')}.{kind}"] = stream.getvalue()
    array = io.BytesIO()
    np.save(array, np.asarray(photo.convert("L"), np.float32) / 255)
    return pictures | {"map.npy": array.getvalue()}


def try_one(name: str, action: Callable[[], object]) -> str:
    """Return what was wrong with an answer; empty if it was a result, or an error in one sentence."""
    started = time.monotonic()
    try:
        action()
    except CracksegError as error:
        if "Traceback" in str(error) or len(str(error)) > 40_000:
            return f"{name}: not a sentence: {str(error)[:200]}"
    except Exception:
        return f"{name}: {traceback.format_exc(limit=-3)}"
    taken = time.monotonic() - started
    return f"{name}: {taken:.0f} s" if taken > MAX_S else ""


def fuzz_images(count: int, seed: int, folder: Path, analyzer: CrackAnalyzer) -> Iterator[str]:
    """Predict damaged photographs, and read them as masks and as maps; yields what was wrong."""
    rng, pictures = random.Random(seed), make_pictures()
    photographs, out = folder / "photographs", folder / "found"
    for number in range(count):
        name = rng.choice([*pictures])
        path = photographs / f"{number}-{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(damage(pictures[name], rng))
        for read in (read_mask, read_stored_map):
            yield try_one(f"{read.__name__} of {path.name} (seed {seed})", lambda read=read, path=path: read(path))  # type: ignore[misc]
    found = find_photographs([str(photographs)], out)
    yield try_one(f"predict (seed {seed})", lambda: predict_files(analyzer, found, out, model="m", maps=True))


def fuzz_page(count: int, seed: int, folder: Path, analyzer: CrackAnalyzer) -> Iterator[str]:
    """Drop damaged photographs on the page, ten at a time; each must be shown or named as a problem."""
    rng, pictures = random.Random(seed), make_pictures()
    folder.mkdir(parents=True, exist_ok=True)
    session = Session(SimpleNamespace(load=lambda _: SimpleNamespace(analyzer=analyzer, digest="1")), folder)  # type: ignore[arg-type]
    for first in range(0, count, 10):
        paths = []
        for number in range(first, min(first + 10, count)):
            paths.append(folder / f"{number}-{rng.choice([*pictures])}")
            paths[-1].write_bytes(damage(pictures[paths[-1].name.partition("-")[2]], rng))
        label = f"photographs {first} to {first + len(paths) - 1} on the page (seed {seed})"
        yield try_one(label, lambda paths=paths: list(session.inspect([str(path) for path in paths], "1")))  # type: ignore[misc]
        if len(session.inspections) + len(session.problems) != len(paths):
            yield f"{label}: {len(session.inspections)} shown, {len(session.problems)} problems"
        for name, inspection in session.inspections.items():
            yield try_one(f"{label}: {name}", lambda inspection=inspection: inspection.find_cracks(0.5))  # type: ignore[misc]
        yield from (f"{label}: {said}" for said in session.problems if "Traceback" in said)
    session.close()


def fuzz_imports(count: int, seed: int, folder: Path) -> Iterator[str]:
    """Import datasets of which one file is damaged; the data must be as before, or whole."""
    rng = random.Random(seed)
    pictures = {name: content for name, content in make_pictures().items() if not name.endswith(".npy")}
    for number in range(count):
        source, data = folder / "source", folder / "data"
        for path in (source, data):
            shutil.rmtree(path, ignore_errors=True)
        for stem in ("a", "b"):
            for kind, image in (("images", make_photo(ord(stem))), ("masks", make_mask(ord(stem)) * 255)):
                (source / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(source / kind / f"{stem}.png")
        name = rng.choice([*pictures])
        target = source / rng.choice(("images", "masks")) / "a.png"
        target.write_bytes(damage(pictures[name] if rng.random() < 0.7 else target.read_bytes(), rng))
        label = f"import {number} of {name} (seed {seed})"
        yield try_one(label, lambda source=source, data=data: import_datasets(source, data, name="wall"))  # type: ignore[misc]
        if (data / "wall").exists() and not (data / "wall" / "manifest.csv").exists():
            yield f"{label}: half a dataset"


def fuzz_annotations(count: int, seed: int, folder: Path) -> Iterator[str]:
    """Import damaged annotations of COCO, LabelMe and CVAT."""
    rng = random.Random(seed)
    square = [[10, 5], [20, 5], [20, 9], [10, 9]]
    shape = {"label": "crack", "points": square, "shape_type": "polygon"}
    contents: dict[str, Any] = {
        "7.json": {"imagePath": "7.png", "imageWidth": 60, "imageHeight": 40, "shapes": [shape]},
        "coco.json": {
            "images": [{"id": 3, "file_name": "7.png", "width": 60, "height": 40}],
            "categories": [{"id": 1, "name": "crack"}],
            "annotations": [
                {"id": 1, "image_id": 3, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]], "iscrowd": 0},
                {
                    "id": 2,
                    "image_id": 3,
                    "category_id": 1,
                    "segmentation": {"size": [40, 60], "counts": [0, 9, 2391]},
                },
            ],
        },
        "annotations.xml": '<annotations><image id="0" name="7.png" width="60" height="40"><polyline label="crack" '
        'points="1,1;20,20" occluded="0"/><mask label="crack" rle="3, 4" left="2" top="2" width="7" height="1"/>'
        "</image></annotations>",
    }
    for number in range(count):
        source, data = folder / "source", folder / "data"
        for path in (source, data):
            shutil.rmtree(path, ignore_errors=True)
        source.mkdir(parents=True)
        Image.fromarray(make_photo(7, (60, 40))).save(source / "7.png")
        name = rng.choice([*contents])
        content = contents[name]
        if isinstance(content, str) or rng.random() < 0.3:
            text = damage((content if isinstance(content, str) else json.dumps(content)).encode(), rng)
        else:
            text = json.dumps(_change(json.loads(json.dumps(content)), rng)).encode()
        (source / name).write_bytes(text)
        yield try_one(
            f"annotations {number} {name} (seed {seed}): {text[:300]!r}",
            lambda source=source, data=data: import_datasets(source, data, name="wall", split_counts=(1, 0, 0)),  # type: ignore[misc]
        )


def _change(content: Any, rng: random.Random) -> Any:
    """Replace one value somewhere in a JSON tree by something odd."""
    odd = [
        None,
        -1,
        0,
        1e308,
        10**30,
        "",
        "x" * 5000,
        [],
        {},
        [[]],
        [None],
        True,
        "7.png",
        {"size": [0, 0]},
        float("nan"),
    ]
    if isinstance(content, (dict, list)) and content and rng.random() < 0.85:
        key = rng.choice([*content]) if isinstance(content, dict) else rng.randrange(len(content))
        if rng.random() < 0.1:
            del content[key]
        else:
            content[key] = _change(content[key], rng)
        return content
    return rng.choice(odd)


def fuzz_params(count: int, seed: int, folder: Path) -> Iterator[str]:
    """Read damaged params.yaml files."""
    rng, lines = random.Random(seed), PARAMS.read_text(encoding="utf-8").splitlines()
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        changed = list(lines)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(changed))
            key = changed[at].split(":")[0]
            changed[at] = rng.choice(
                (f"{key}: {rng.choice(_VALUES)}", "", changed[at] * 2, f"  {changed[at]}", key)
            )
        content = "\n".join(changed).encode()
        path = folder / "params.yaml"
        path.write_bytes(damage(content, rng) if rng.random() < 0.3 else content)
        yield try_one(f"params.yaml {number} (seed {seed})", lambda path=path: load_params(path))  # type: ignore[misc]


def fuzz_http(count: int, seed: int, server: TestClient) -> Iterator[str]:
    """Send damaged requests to the scoring server; each must get an answer that is no server error."""
    rng, pictures = random.Random(seed), make_pictures()
    good = base64.b64encode(READABLE["plain.png"]()).decode()
    for number in range(count):
        picture = base64.b64encode(damage(pictures[rng.choice([*pictures])], rng)).decode()
        body = json.dumps({"dataframe_records": [{"image": picture if rng.random() < 0.8 else good}]})
        if rng.random() < 0.3:
            body = json.dumps(_change(json.loads(body), rng))
        content = damage(body.encode(), rng) if rng.random() < 0.4 else body.encode()
        kind = rng.choice(("application/json",) * 6 + ("text/csv", "text/plain", "", "image/png"))
        label = f"request {number} as {kind!r} (seed {seed}): {content[:200]!r}"
        started = time.monotonic()
        try:
            answer = server.post("/invocations", content=content, headers={"content-type": kind} if kind else {})
        except Exception:
            yield f"{label}: {traceback.format_exc(limit=-3)}"
            continue
        if answer.status_code >= 500 or "Traceback" in answer.text or time.monotonic() - started > MAX_S:
            yield f"{label}: {answer.status_code} {answer.text[:800]}"
