"""The option `--crack-value` of every command that reads masks."""

from __future__ import annotations

from typing import Any

import click

from crackseg.errors import CracksegError


class _CrackValueType(click.ParamType):
    name = "value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        from crackseg.data.masks.crack_values import parse_crack_value

        try:
            return parse_crack_value(str(value))
        except CracksegError as error:
            self.fail(str(error), param, ctx)


crack_value_option = click.option(
    "--crack-value",
    "crack_values",
    type=_CrackValueType(),
    multiple=True,
    help="Mask value that means crack, e.g. 255 or '#800000' (repeatable).",
)
