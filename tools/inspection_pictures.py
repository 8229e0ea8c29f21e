"""Make the pictures of the page and of docs/inspecting.md again, with the shipped model: `make inspection-pictures`.

Draws scenes that the model never saw (their seeds lie beyond those of training), lets `crackseg app`, `predict`,
`growth` and `inspection-report` work on them, and photographs the page and the report with an installed Chromium.
Takes some minutes, and trains nothing.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import rasterio
from PIL import Image
from rasterio.transform import Affine, AffineTransformer

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tools.screenshots import IMAGES, open_page, start_server, write_picture  # noqa: E402
from tools.small_project import environment_of  # noqa: E402

from crackseg.data.images.files import write_png  # noqa: E402
from crackseg.data.synthetic.scenes import render_scene  # noqa: E402
from crackseg.geometry.severity import Grading  # noqa: E402
from crackseg.params.width_classes import WIDTH_CLASSES  # noqa: E402

UNSEEN = 2**31  # training draws its seeds below this
MOST_BYTES = 145_000
DESKTOP, PHONE = {"width": 1400, "height": 1000}, {"width": 390, "height": 844}
MM_PER_PX = 0.3


def main(folder: Path) -> None:
    """Work in ``folder`` and write every picture."""
    (folder / "src").symlink_to(ROOT / "src")  # where environment_of looks for crackseg
    photographs = draw_photographs(folder / "bridge7")
    photograph_page(folder, photographs[3])
    scale = ("--mm-per-px", MM_PER_PX, "--scale-error-pct", 3)
    run(folder, "predict", photographs[3], "--out", "found", "--measure", *scale)
    write_jpeg(Image.open(folder / "found" / "annotated" / f"{photographs[3].stem}.jpg"), "inspecting_severity")
    run(folder, "inspection-report", "bridge7", "--out", "report7", *scale, "--title", "Bridge 7, pier 3")
    photograph_report(folder / "report7" / "report.html")
    before, after = draw_visits(folder)
    run(folder, "growth", before, after, "--out", "growth", "--mm-per-px", MM_PER_PX)
    write_jpeg(Image.open(folder / "growth" / "pictures" / f"{before.stem}.jpg"), "inspecting_growth")
    deck = draw_mosaic(folder / "deck.tif")
    run(folder, "predict", deck, "--out", "found", "--surface", "pavement")
    write_jpeg(draw_lines(deck, folder / "found" / "mosaics" / "deck.geojson"), "inspecting_mosaic")


def run(folder: Path, *arguments: object) -> None:
    """Run a crackseg command in ``folder`` with the shipped model."""
    command = ["crackseg", *map(str, arguments), "--model", "scenes"]
    subprocess.run(command, cwd=folder, env=environment_of(folder), check=True)


def draw_photographs(folder: Path) -> list[Path]:
    """Draw the photographs of a visit."""
    paths = []
    for number, look in enumerate(("CrackTree260", "CrackTree260", "CRKWH100", "CrackTree260", "CRKWH100")):
        paths.append(folder / f"pier3_{number + 1}.png")
        write_png(paths[-1], render_scene(look, UNSEEN + number, size=(800, 600)).image)
    return paths


def draw_visits(folder: Path) -> tuple[Path, Path]:
    """Draw a wall, and the same wall after a crack has grown, from elsewhere and in other light."""
    size = (800, 600)
    sound, cracked = (
        render_scene("CRKWH100", UNSEEN + 1, size=size, with_crack=with_crack).image
        for with_crack in (False, True)
    )
    before = np.where(np.arange(size[1])[:, None, None] < 0.55 * size[1], cracked, sound)
    turn = cv2.getRotationMatrix2D((400, 300), 4, 1.04)
    after = cv2.warpAffine(cracked, turn, size, borderMode=cv2.BORDER_REFLECT)
    light = 0.85 + 0.25 * np.linspace(0, 1, size[0])[None, :, None]
    paths = folder / "2024.png", folder / "2026.png"
    write_png(paths[0], before)
    write_png(paths[1], (after * light).clip(0, 255).astype(np.uint8))
    return paths


def draw_mosaic(path: Path) -> Path:
    """Draw an orthomosaic of 2 mm per pixel in UTM zone 32, turned, with no data around it."""
    image = render_scene("CrackTree260", UNSEEN + 11, size=(1600, 1100)).image
    alpha = np.zeros(image.shape[:2], np.uint8)
    cv2.fillPoly(alpha, [np.array([[40, 110], [1480, 20], [1570, 980], [130, 1080]])], 255)
    bands = np.dstack([image, alpha]).transpose(2, 0, 1)
    turned = Affine.translation(465000, 5247000) @ Affine.rotation(12) @ Affine.scale(0.002, -0.002)
    with rasterio.open(
        path, "w", driver="GTiff", width=1600, height=1100, count=4, dtype="uint8", crs="EPSG:32632", transform=turned,
        photometric="RGB", alpha="YES",
    ) as file:  # fmt: skip
        file.write(bands)
    return path


def draw_lines(mosaic: Path, geojson: Path) -> Image.Image:
    """Draw the centre lines of a GeoJSON on their mosaic, in the colours of their classes."""
    from pyproj import Transformer

    grading = Grading("pavement", WIDTH_CLASSES["pavement"])
    with rasterio.open(mosaic) as file:
        bands, crs, transform = file.read(), file.crs, file.transform
    picture = np.ascontiguousarray(bands[:3].transpose(1, 2, 0))
    picture[bands[3] == 0] = 255
    to_crs, to_px = Transformer.from_crs(4326, crs, always_xy=True), AffineTransformer(transform)
    for feature in json.loads(geojson.read_text())["features"]:
        for line in feature["geometry"]["coordinates"]:
            rows, columns = to_px.rowcol(*to_crs.transform(*np.transpose(line)), op=lambda value: value)
            points = [np.stack([columns, rows], axis=1).round().astype(np.int32)]
            for colour, width in (((20, 20, 20), 7), (grading.colour_of(feature["properties"]["severity"]), 4)):
                cv2.polylines(picture, points, isClosed=False, color=colour, thickness=width, lineType=cv2.LINE_AA)
    return Image.fromarray(picture)


def photograph_page(folder: Path, photograph: Path) -> None:
    """Photograph the page as a person sees it who has dropped a photograph and clicked its scale."""
    with start_server(folder, "app") as address, open_page() as page:
        for size, name in ((DESKTOP, "screenshot_app"), (PHONE, "screenshot_app_phone")):
            page.set_viewport_size(size)
            page.goto(address)
            page.locator("#files input[type=file]").set_input_files(photograph)
            page.locator("#download-mask:enabled").wait_for()
            box = page.locator("#base img").bounding_box()
            shown = min(box["width"] / 800, box["height"] / 600)
            left, top = box["x"] + (box["width"] - 800 * shown) / 2, box["y"] + (box["height"] - 600 * shown) / 2
            for x, y in ((120, 540), (370, 540)):
                page.mouse.click(left + x * shown, top + y * shown)
                page.wait_for_timeout(1000)
            page.locator("#distance textarea, #distance input").fill(f"{250 * MM_PER_PX:g}")
            page.locator("#summary .legend i").first.wait_for()
            page.locator("#download-mask:enabled").wait_for()
            if size == PHONE:
                page.locator("#picture").scroll_into_view_if_needed()
                page.evaluate("document.querySelector('#seen').scrollIntoView()")
            page.wait_for_timeout(2000)
            write_picture(page.screenshot(), IMAGES / f"{name}.png")


def photograph_report(path: Path) -> None:
    """Photograph the top of the report at the width of a printed page."""
    with open_page() as page:
        page.set_viewport_size({"width": 900, "height": 1150})
        page.goto(path.as_uri())
        page.wait_for_timeout(1000)
        write_jpeg(Image.open(io.BytesIO(page.screenshot())), "inspecting_report")


def write_jpeg(image: Image.Image, name: str) -> None:
    """Write a picture, smaller until it fits into 145 KB."""
    image = image.convert("RGB")
    while True:
        image.thumbnail((1200, 1200), Image.Resampling.LANCZOS)
        content = io.BytesIO()
        image.save(content, "JPEG", quality=82, optimize=True)
        if len(content.getvalue()) < MOST_BYTES:
            break
        image = image.resize((image.width * 9 // 10, image.height * 9 // 10), Image.Resampling.LANCZOS)
    path = IMAGES / f"{name}.jpg"
    path.write_bytes(content.getvalue())
    print(f"{path.relative_to(ROOT)}: {image.width} x {image.height}, {len(content.getvalue()) // 1000} KB")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(scratch))
