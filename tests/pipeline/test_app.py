"""What a person does on the inspection page, in a browser: drop, look, move the threshold, download, make mistakes."""

from __future__ import annotations

import base64
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import BrowserContext, Download, Locator, Page, ViewportSize, expect

from crackseg.data.images.files import decode_image, encode_png, read_image
from crackseg.inference.detector import CrackAnalyzer
from crackseg.registry.production import Production
from crackseg.serving.page.findings import FORMS
from tests.odd_pictures import BROKEN, HEIGHT, READABLE, WIDTH
from tests.pipeline.app_server import browse, make_registered, open_page, serve
from tests.pipeline.conftest import Project
from tests.tiny_training import list_samples

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
DESKTOP: ViewportSize = {"width": 1280, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}
GROWN_PX = 120
Registered = tuple[Project, Production, CrackAnalyzer]


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Registered:
    return make_registered(tmp_path_factory.mktemp("app") / "project")


@pytest.fixture(scope="module")
def address(registered: Registered) -> Iterator[str]:
    with serve(registered[0]) as address:
        yield address


@pytest.fixture(scope="module")
def context() -> Iterator[BrowserContext]:
    with browse() as context:
        yield context


@pytest.fixture
def page(context: BrowserContext, address: str) -> Iterator[Page]:
    page = open_page(context, address)
    yield page
    page.close()


@pytest.fixture
def photograph(registered: Registered) -> Path:
    return list_samples(registered[0].folder / "model" / "samples")[0][0].image_path


def drop(page: Page, *files: Path | dict) -> None:
    page.locator("#files input[type=file]").set_input_files(list(files))  # type: ignore[arg-type]


def as_upload(name: str, content: bytes) -> dict:
    return {"name": name, "mimeType": "application/octet-stream", "buffer": content}


def wait_until_measured(page: Page) -> None:
    expect(page.locator("#download-mask")).to_be_enabled()


def set_threshold(page: Page, value: float) -> None:
    box = page.locator("#threshold input[type=number]")
    box.fill(f"{value:g}")
    box.press("Tab")


def download(page: Page, name: str) -> Download:
    with page.expect_download() as waiting:
        page.locator(f"#download-{name}").click()
    return waiting.value


def read_picture(page: Page, place: str) -> np.ndarray:
    """The pixels of a picture of the page, as cv2 decodes them."""
    source = page.locator(f"{place} img").get_attribute("src") or ""
    content = base64.b64decode(source.partition("base64,")[2])
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)


def check_nothing_is_cut_off(page: Page) -> None:
    """Check that nothing reaches beyond the screen, except within tables, which scroll within themselves."""
    width = page.evaluate("innerWidth")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    beyond = """width => [...document.querySelectorAll('body *')].filter(one => {
        const box = one.getBoundingClientRect();
        return box.width && box.right > width + 1 && !one.closest('.scroll, .half');
    }).map(one => one.outerHTML.slice(0, 100))"""
    assert page.evaluate(beyond, width) == []


def draw_visits() -> dict[str, np.ndarray]:
    """Two visits to a wall with a dark line that has grown by ``GROWN_PX``, and another wall; uint8 (320, 320, 3)."""
    rng = np.random.default_rng(3)
    grey = [150 + 40 * cv2.GaussianBlur(rng.standard_normal((320, 320)), (0, 0), 1.5) for _ in range(2)]
    drawn = {}
    for name, wall, end in (("before", 0, 130), ("after", 0, 130 + GROWN_PX), ("elsewhere", 1, 130)):
        image = grey[wall].copy()
        cv2.line(image, (50, 120), (end, 120), 40, 3)
        image = np.roll(image, 4, axis=1) if name == "after" else image  # the camera stood a little to the left
        drawn[name] = np.repeat(image.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
    return drawn


def test_drop_look_move_and_download(page: Page, photograph: Path, registered: Registered) -> None:
    analyzer = registered[2]
    image = read_image(photograph)
    expect(page.locator("#version input")).to_have_value(re.compile("version 1 · production · unet"))
    drop(page, photograph)
    wait_until_measured(page)
    own = analyzer.analyze(image)
    assert 0 < own.crack_fraction < 0.2
    assert np.array_equal(read_picture(page, "#cracks")[..., 3] > 0, own.crack_mask)
    assert np.array_equal(
        decode_image(Path(download(page, "mask").path()).read_bytes())[..., 0] > 0, own.crack_mask
    )

    stricter = analyzer.analyze(image, threshold=0.8)
    assert 0 < stricter.crack_fraction < own.crack_fraction
    set_threshold(page, 0.8)
    expect(page.locator("#summary")).to_contain_text("0.8")
    wait_until_measured(page)
    assert np.array_equal(read_picture(page, "#cracks")[..., 3] > 0, stricter.crack_mask)
    mask = download(page, "mask")
    assert mask.suggested_filename == f"{photograph.stem}_mask.png"
    values = cv2.imread(str(mask.path()), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(values, stricter.crack_mask * np.uint8(255))

    table = pd.read_csv(download(page, "csv").path())
    assert len(table) == page.locator("#table tbody tr").count() >= 1
    picture = decode_image(Path(download(page, "picture").path()).read_bytes())
    assert picture.shape[0] >= image.shape[0]
    assert np.ptp(picture.astype(int), axis=2).max() > 60  # colours on a photograph that is nearly grey

    page.get_by_role("button", name="The model's own threshold").click()
    expect(page.locator("#summary")).to_contain_text("0.4567")


def test_the_slider_moves_by_hand(page: Page, photograph: Path) -> None:
    drop(page, photograph)
    wait_until_measured(page)
    before = page.locator("#cracks img").get_attribute("src")
    slider = page.locator("#threshold input[type=range]").bounding_box()
    assert slider
    assert slider["y"] < 900  # in sight below the picture, without scrolling
    page.mouse.move(slider["x"] + 0.4567 * slider["width"], slider["y"] + slider["height"] / 2)
    page.mouse.down()
    page.mouse.move(slider["x"] + 0.95 * slider["width"], slider["y"] + slider["height"] / 2, steps=5)
    page.mouse.up()
    expect(page.locator("#cracks img")).not_to_have_attribute("src", before or "")


def test_opacity_is_the_overlays(page: Page, photograph: Path) -> None:
    drop(page, photograph)
    wait_until_measured(page)
    opacity = page.locator("#opacity input[type=number]")
    for percent in (0, 35):
        opacity.fill(str(percent))
        opacity.press("Tab")
        expect(page.locator("#cracks")).to_have_css("opacity", f"{percent / 100:g}")


def test_the_probability_map_is_shown(page: Page, photograph: Path, registered: Registered) -> None:
    drop(page, photograph)
    wait_until_measured(page)
    page.get_by_role("tab", name="Probability").click()
    expect(page.locator("#heat img")).to_be_visible()
    shown = read_picture(page, "#heat").astype(int).sum(axis=2)
    crack_prob = registered[2].predictor.predict_prob(read_image(photograph))
    assert np.corrcoef(shown.ravel(), crack_prob.ravel())[0, 1] > 0.9


def test_broken_files_are_named_and_the_page_goes_on(page: Page, photograph: Path) -> None:
    drop(page, *(as_upload(name, content) for name, (content, _) in BROKEN.items()))
    for _, message in BROKEN.values():
        expect(page.locator("#problems .notice", has_text=message)).to_be_visible()
    expect(page.locator("#picture")).to_be_hidden()
    page.reload()
    drop(page, as_upload("empty.png", b""), as_upload("whole.png", photograph.read_bytes()))
    wait_until_measured(page)
    expect(page.locator("#problems .notice.error")).to_have_text("empty.png: the file is empty (0 bytes)")
    expect(page.locator("#problems .notice.error")).to_be_visible()
    assert len(read_picture(page, "#cracks"))


@pytest.mark.parametrize("name", READABLE)
def test_what_cameras_write_is_shown_upright(page: Page, name: str) -> None:
    drop(page, as_upload(name, READABLE[name]()))
    wait_until_measured(page)
    assert read_picture(page, "#base").shape[:2] == (HEIGHT, WIDTH)
    grey = read_picture(page, "#base").mean(axis=2)
    assert grey[8:11, 8:40].mean() < 70 < 90 < grey[30:40, 8:40].mean()  # the dark line, in the upper left


def test_several_photographs_and_versions(page: Page, registered: Registered) -> None:
    first, second = list_samples(registered[0].folder / "model" / "samples")[0][:2]
    drop(page, first.image_path, second.image_path)
    wait_until_measured(page)
    for sample in (second, first, second):
        page.locator("#photograph input").click()
        page.get_by_role("option", name=sample.image_path.name).click()
        expect(page.locator(f"#base img[alt='{sample.image_path.name}']")).to_be_visible()
    page.locator("#version input").click()
    page.get_by_role("option", name="version 2").click()
    expect(page.locator("#version input")).to_have_value(re.compile("version 2"))
    # Until then the files of the former version can be enabled.
    expect(page.locator(f"#base img[alt='{first.image_path.name}']")).to_be_visible()
    wait_until_measured(page)
    assert download(page, "mask").suggested_filename == f"{first.stem}_mask.png"


def test_a_photograph_of_another_kind_is_warned_of(page: Page) -> None:
    white = encode_png(np.full((64, 64, 3), 255, np.uint8))
    drop(page, as_upload("white.png", white))
    warning = page.locator("#unusual .notice", has_text="unlike those that the model was made with")
    expect(warning).to_be_visible()
    expect(warning).to_contain_text("brightness 1, theirs 0.2 to 0.8")


def test_lengths_in_millimetres_and_a_scale_of_nothing(page: Page, photograph: Path) -> None:
    drop(page, photograph)
    wait_until_measured(page)
    scale = page.locator("#mm-per-px textarea, #mm-per-px input")
    scale.fill("0")
    scale.press("Tab")
    expect(page.locator("#table .notice.error")).to_be_visible()
    expect(page.locator("#download-csv")).to_be_disabled()
    scale.fill("0,5")
    scale.press("Tab")
    wait_until_measured(page)
    expect(page.locator("#table th", has_text="mm").first).to_be_visible()


def test_nothing_is_wider_than_a_phone(page: Page, photograph: Path) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    drop(page, photograph)
    wait_until_measured(page)
    for tab in ("Probability", "Cracks"):
        page.get_by_role("tab", name=tab).click()
        check_nothing_is_cut_off(page)
    box = page.locator("#base img").bounding_box()
    assert box
    assert box["width"] > 280  # the picture has the width of the screen


def click_at(page: Page, x: float, y: float) -> None:
    """Click a place of the photograph, in fractions of its width and height."""
    box = page.locator("#base img").bounding_box()
    assert box
    side = min(box["width"], box["height"])  # the test's photographs are square, and centred
    left, top = box["x"] + (box["width"] - side) / 2, box["y"] + (box["height"] - side) / 2
    page.mouse.click(left + x * side, top + y * side)


def field(page: Page, name: str) -> Locator:
    return page.locator(f"#{name} textarea, #{name} input")


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_two_clicked_points_and_their_distance_give_classes_in_colour(
    page: Page, photograph: Path, size: ViewportSize
) -> None:
    page.set_viewport_size(size)
    drop(page, photograph)
    wait_until_measured(page)
    expect(page.locator("#summary .legend")).to_contain_text("No width classes")
    page.locator("#base img").scroll_into_view_if_needed()
    click_at(page, 0.25, 0.5)
    expect(page.locator("#points-say")).to_contain_text("Click the second one")
    click_at(page, 0.75, 0.5)
    expect(page.locator("#points-say")).to_contain_text("px apart. Type their distance")
    expect(page.locator("#points path.line")).to_have_count(2)
    field(page, "distance").fill("48")  # half of 64 pixels: 1.5 mm per pixel
    expect(field(page, "mm-per-px")).not_to_have_value("")
    assert float(field(page, "mm-per-px").input_value()) == pytest.approx(1.5, rel=0.05)
    assert (
        1 < float(field(page, "error-pct").input_value()) < 5
    )  # of the least, half a pixel for each point, 2.2 %
    expect(page.locator("#summary")).to_contain_text("mm per pixel ±")
    expect(page.locator("#summary .legend i")).to_have_count(4)
    wait_until_measured(page)
    picture = read_picture(page, "#cracks")
    shown = {tuple(colour) for colour in picture[picture[..., 3] > 0][:, 2::-1]}
    legend = [swatch.get_attribute("style") for swatch in page.locator("#table td i").all()]
    assert {f"background: rgb{tuple(map(int, colour))}" for colour in shown} == set(legend)
    assert pd.read_csv(download(page, "csv").path()).severity.notna().all()
    check_nothing_is_cut_off(page)

    field(page, "mm-per-px").fill("2")  # another scale is not that of the points
    expect(field(page, "error-pct")).to_have_value("")
    expect(page.locator("#points path")).to_have_count(0)
    expect(page.locator("#summary")).to_contain_text("2 mm per pixel.")


def test_all_forms_of_all_photographs_come_in_one_file(page: Page, registered: Registered) -> None:
    samples = list_samples(registered[0].folder / "model" / "samples")[0][:2]
    drop(page, *(sample.image_path for sample in samples))
    wait_until_measured(page)
    lines = json.loads(Path(download(page, "lines").path()).read_text())
    assert {feature["geometry"]["type"] for feature in lines["features"]} == {"LineString"}
    page.locator("#pack").click()
    expect(page.locator("#download-all")).to_contain_text("Download 2 photographs")
    with zipfile.ZipFile(download(page, "all").path()) as archive:
        names = archive.namelist()
    assert len(names) == 2 * len(FORMS)
    for sample in samples:
        assert f"{sample.image_path.name}/{sample.stem}_mask.png" in names
    set_threshold(page, 0.8)
    expect(page.locator("#download-all")).to_be_hidden()  # it is of another threshold


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_growth_of_two_uploads_is_shown_and_two_places_are_refused(
    page: Page, size: ViewportSize, tmp_path: Path
) -> None:
    page.set_viewport_size(size)
    visits = draw_visits()
    page.get_by_role("tab", name="Growth").click()
    expect(page.locator("#growth-compare")).to_be_disabled()
    for when in ("before", "after"):
        content = {"name": "pier3.png", "mimeType": "image/png", "buffer": encode_png(visits[when])}
        page.locator(f"#growth-{when} input[type=file]").set_input_files(content)  # type: ignore[arg-type]
    field(page, "growth-mm-per-px").fill("0,5")
    page.locator("#growth-compare").click()
    for half in page.locator("#growth-picture svg").all():
        expect(half).to_be_visible()
    expect(page.locator("#growth-says")).to_contain_text("mm new")
    expect(page.locator("#growth-table tbody tr").first).to_contain_text("longer")
    check_nothing_is_cut_off(page)
    with page.expect_download() as waiting:
        page.locator("#growth-download-csv").click()
    table = pd.read_csv(waiting.value.path())
    assert table.before.tolist() == ["pier3.png"] * len(table)
    assert table.longer_by_mm.max() == pytest.approx(0.5 * GROWN_PX, rel=0.3)

    page.locator("#growth-after").get_by_role("button", name=re.compile("clear|remove", re.IGNORECASE)).click()
    other = {"name": "elsewhere.png", "mimeType": "image/png", "buffer": encode_png(visits["elsewhere"])}
    page.locator("#growth-after input[type=file]").set_input_files(other)  # type: ignore[arg-type]
    page.locator("#growth-compare:enabled").click()
    expect(page.locator("#growth-says .notice.error")).to_be_visible()
    expect(page.locator("#growth-picture svg")).to_have_count(0)


def test_no_production_model_is_said(
    context: BrowserContext, address: str, registered: Registered, photograph: Path
) -> None:
    production = registered[1]
    production.client.delete_registered_model_alias("crackseg", "production")
    try:
        page = open_page(context, address)
        expect(
            page.get_by_text("No version is in production: the model that crackseg ships is chosen")
        ).to_be_visible()
        drop(page, photograph)
        wait_until_measured(page)
        page.locator("#version input").click()
        page.get_by_role("option", name="version 2").click()
        wait_until_measured(page)
        page.close()
    finally:
        production.client.set_registered_model_alias("crackseg", "production", "1")


def test_another_sites_page_is_turned_away(context: BrowserContext, address: str) -> None:
    assert context.request.get(address, headers={"Host": "elsewhere.example"}).status == 400
