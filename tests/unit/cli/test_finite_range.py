"""No option takes `nan`, which passes every comparison with a limit, or an infinite number."""

from collections.abc import Iterator

import click
import pytest

from crackseg.cli import cli
from crackseg.cli.finite_range import FiniteRange

CHECKED_ELSEWHERE = {"mm_per_px"}  # check_mm_per_px, also for a scale from two points


def options_with_numbers(group: click.Group) -> Iterator[tuple[str, click.ParamType]]:
    for command in group.commands.values():
        if isinstance(command, click.Group):
            yield from options_with_numbers(command)
            continue
        for param in command.params:
            for kind in getattr(param.type, "types", [param.type]):
                if isinstance(kind, type(click.FLOAT)) and param.name not in CHECKED_ELSEWHERE:
                    yield f"{command.name} --{param.name}", kind


def test_every_option_with_a_number_refuses_nan_and_infinity() -> None:
    found = dict(options_with_numbers(cli))
    assert len(found) > 15
    assert [option for option, kind in found.items() if not isinstance(kind, FiniteRange)] == []


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999"])
def test_what_is_not_finite_is_refused_with_what_was_typed(text: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        FiniteRange().convert(text, None, None)
    assert f"'{text}' is not a finite number" in caught.value.message
    assert FiniteRange(0).convert("0.5", None, None) == 0.5
