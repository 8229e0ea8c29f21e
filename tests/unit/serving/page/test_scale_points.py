"""Two clicks and a distance give the scale with its uncertainty; what is no scale is refused with the reason."""

import pytest

from crackseg.errors import CracksegError
from crackseg.geometry.scale import Scale
from crackseg.serving.page.scale_points import (
    Point,
    add_point,
    make_point,
    read_clicks,
    read_scale,
)

ENDS = (Point(10, 20, 0.5), Point(310, 420, 0.5))  # 500 px apart


def test_two_points_and_their_distance_give_the_scale() -> None:
    scale, said = read_clicks(ENDS, "100")
    assert scale
    assert scale.mm_per_px == pytest.approx(0.2)
    assert scale.relative_error == pytest.approx(0.5 * 2**0.5 / 500)
    assert "500.0 px apart: 0.2 mm per pixel ± 0.14 %" in said


def test_a_click_is_as_exact_as_the_screen_and_a_finger_less_so() -> None:
    errors = [make_point(0, 0, screen_px, touch=touch).error_px for screen_px, touch in ((4, False), (4, True))]
    assert errors == [4, 32]
    assert (
        make_point(0, 0, 0.1, touch=False).error_px == 0.5
    )  # an enlarged picture is not more exact than its pixels


def test_a_third_point_begins_again() -> None:
    points: tuple[Point, ...] = ()
    for count, point in zip((1, 2, 1), (*ENDS, ENDS[0]), strict=True):
        points = add_point(points, point)
        assert len(points) == count


@pytest.mark.parametrize(("points", "distance"), [((), ""), ((), "100"), (ENDS[:1], "100"), (ENDS, " ")])
def test_what_is_missing_is_said_and_gives_no_scale(points: tuple[Point, ...], distance: str) -> None:
    scale, said = read_clicks(points, distance)
    assert scale is None
    assert bool(said) == bool(points or distance.strip())


@pytest.mark.parametrize("distance", ["0", "-3", "nan", "ten"])
def test_a_distance_that_is_none_is_refused(distance: str) -> None:
    with pytest.raises(CracksegError, match=r"the distance is .*expected"):
        read_clicks(ENDS, distance)


def test_two_clicks_on_one_place_are_refused() -> None:
    with pytest.raises(CracksegError, match="0 pixels apart; give two different ones"):
        read_clicks((ENDS[0], ENDS[0]), "100")


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e999", "half", "0,5 mm"])
def test_a_scale_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(CracksegError, match=r"the scale is .*expected millimetres per pixel, over 0"):
        read_scale(text)


@pytest.mark.parametrize(("text", "scale"), [("", None), (" ", None), ("0.5", 0.5), (" 0,25 ", 0.25), ("2", 2)])
def test_a_scale_has_a_point_or_a_comma(text: str, scale: float | None) -> None:
    assert read_scale(text) == (None if scale is None else Scale(scale))


def test_the_uncertainty_is_in_percent_of_the_scale() -> None:
    assert read_scale("0.5", "2,5") == Scale(0.5, 0.025)
    assert read_scale("", "2,5") is None
    for text in ("100", "-1", "nan", "little"):
        with pytest.raises(CracksegError, match=r"the uncertainty of the scale is .*expected"):
            read_scale("0.5", text)
