"""Types and options of event handlers that the tabs share."""

from __future__ import annotations

from typing import Any

Changes = dict[Any, Any]  # what a handler returns: new values by component
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
