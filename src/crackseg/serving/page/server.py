"""Serve the inspection page on 127.0.0.1; a policy keeps the browser from connecting to other hosts."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from crackseg.errors import CracksegError
from crackseg.geometry.severity import OF_CONCRETE, Grading
from crackseg.ports import check_port
from crackseg.serving.deployment import find_registered, has_production
from crackseg.serving.page.model_cache import ModelCache

HOST = "127.0.0.1"
# The browser enforces it, also against requests of gradio's page.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; frame-ancestors 'none'"
)


def run_app(
    port: int, say: Callable[[str], Any], grading: Grading = OF_CONCRETE, *, max_megabytes: float = 500
) -> None:
    """Serve the page until it is interrupted.

    Args:
        port: on 127.0.0.1.
        say: told the address, once.
        grading: rules for kinds and width classes.
        max_megabytes: of a photograph's file, in units of 2^20 bytes.
    Raises:
        CracksegError: gradio is not installed, or the port is taken.
    """
    # Read by gradio when it is imported: no telemetry, no check for newer versions.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        import gradio  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise CracksegError(f"crackseg app needs gradio ({error}): pip install 'crackseg[app]'") from error
    from crackseg.serving.page.layout import build_page

    check_port(HOST, port)
    production = find_registered()
    has_production(production)
    cache = ModelCache(production)
    with tempfile.TemporaryDirectory(prefix="crackseg-app-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # photographs are deleted with the page
        page, looks = build_page(cache, Path(folder), grading)
        server = build_server(page, looks, port=port, max_megabytes=max_megabytes)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # leave by way of the `with`
        if warning := cache.list_choices().warning:
            logging.getLogger("crackseg").warning("WARNING: %s", warning)
        say(f"http://{HOST}:{port} shows the page; Ctrl-C ends it")
        logging.getLogger("uvicorn.error").addFilter(_is_news)
        with suppress(KeyboardInterrupt):
            uvicorn.run(
                server, host=HOST, port=port, log_config=None, log_level="warning", timeout_graceful_shutdown=1
            )


def build_server(page: Any, looks: dict[str, Any], *, port: int, max_megabytes: float) -> Any:
    """Build the server of a page.

    Args:
        page: gradio's blocks.
        looks: more arguments for mounting it.
        port: on 127.0.0.1.
        max_megabytes: of an uploaded file.
    Returns:
        An ASGI application.
    """
    import gradio
    from fastapi import FastAPI
    from gradio.route_utils import FnIndexInferError
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import ClientDisconnect

    server = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gradio.mount_gradio_app(
        server, page, path="/", server_name=HOST, server_port=port, footer_links=[], run_history=False,
        ssr_mode=False, show_error=True, max_file_size=int(max_megabytes * 2**20),
        app_kwargs={
            "exception_handlers": {
                KeyError: _refuse_unknown, FnIndexInferError: _refuse_unknown, OSError: _end_upload,
                ClientDisconnect: _end_upload,
            }
        },
        **looks,
    )  # fmt: skip
    server.add_middleware(_Policy)
    # Refuses requests under another host name (DNS rebinding).
    server.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    return server


def _refuse_unknown(_request: Any, error: Exception) -> Any:
    """Answer a request for what the page does not have, for example of a browser tab from before an update.

    The errors are those of gradio's look-ups: the page's own functions run in its queue, and theirs do not come here.
    """
    from starlette.responses import JSONResponse

    logging.getLogger("crackseg").debug("the page has no such function", exc_info=error)
    return JSONResponse({"detail": "the page has no such function; load it again"}, 404)


def _end_upload(_request: Any, error: Exception) -> Any:
    """Answer an upload that cannot be written, or whose sender is gone; remove what has come of it."""
    from starlette.responses import PlainTextResponse

    for frame, _ in traceback.walk_tb(error.__traceback__):  # gradio removes them after other errors only
        for file in getattr(frame.f_locals.get("self"), "_files_to_close_on_error", ()):
            for remove in (file.close, partial(os.unlink, file.name)):
                with suppress(OSError):
                    remove()
    if not isinstance(error, OSError):
        return PlainTextResponse("", 400)  # no one reads it
    said = f"the file cannot be kept in {os.environ['GRADIO_TEMP_DIR']}: {error.strerror or error}"
    logging.getLogger("crackseg").warning(said)
    return PlainTextResponse(said, 507)


def _is_news(record: logging.LogRecord) -> bool:
    """Return False for errors of open pages that lose their connection when the command ends."""
    cause = record.exc_info[1] if record.exc_info else None
    return (
        not isinstance(cause, asyncio.CancelledError) and "graceful shutdown exceeded" not in record.getMessage()
    )


class _Policy:
    """Sends the content security policy with every answer."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", _POLICY.encode())]
            await send(message)

        await self._app(scope, receive, send_with_policy)
