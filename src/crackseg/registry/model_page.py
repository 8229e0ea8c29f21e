"""Description of the registered model, which is the top of its page in MLflow."""

from __future__ import annotations

import re

from mlflow import MlflowClient

from crackseg.registry.promotion_log import Record, repeat

# MLflow keeps line breaks, and shows a paragraph for each. Ten versions below it fit on one screen.
_BEGINNING = "Finds hair-thin cracks in photographs of roads and concrete, pixel by pixel."
_DESCRIPTION = (
    _BEGINNING + " The run behind each version has its settings, curves and maps; its card is the version's "
    "description. `crackseg promote` puts a version into production (`models:/{name}@production`), past a gate; an "
    "alias that is moved by hand goes past the gate, and the next command puts it on record.\n"
)
_LAST = re.compile(r"^Last change: .*$", re.MULTILINE)
_MAX_REASON_CHARACTERS = 120


def describe_model(name: str) -> str:
    """Describe a new registered model, in Markdown."""
    return _DESCRIPTION.format(name=name)


def show_last_change(client: MlflowClient, name: str, record: Record) -> None:
    """Put the history's last record into the description. One that a person wrote stays as it is."""
    text = client.get_registered_model(name).description or ""
    line = _describe_change(record)
    changed = _LAST.sub(lambda _: line, text)
    if changed == text and line not in text and text.startswith(_BEGINNING):
        changed = f"{text.rstrip()}\n\n{line}\n"
    if changed != text:
        repeat(lambda: client.update_registered_model(name, changed))


def _describe_change(record: Record) -> str:
    reason = re.sub(r"([\\`*_<>\[\]|])", r"\\\1", record.reason)  # a person's words, not Markdown
    if len(reason) > _MAX_REASON_CHARACTERS:
        reason = reason[:_MAX_REASON_CHARACTERS].rstrip("\\") + " …"
    target = f"version {record.to_version}" if record.to_version else "nothing"
    return (
        f"Last change: {target} in production since {record.time[:16].replace('T', ' ')} UTC, {record.action} by "
        f"{record.user} ({reason}); record {record.number} of `crackseg history`."
    )
