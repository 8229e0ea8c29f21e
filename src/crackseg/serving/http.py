"""MLflow's scoring server for one version, with limits on the size of requests and images.

`crackseg serve` runs this file by its path, in isolated mode, and it imports nothing of crackseg: the version answers
with the code that it was registered with, not with the installed code.
"""

import argparse
import io
import json
import logging
import os
import string
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from typing import Any, cast

HOST = "127.0.0.1"
_AT_ONCE = 2  # predictions: one computes while another decodes; more would only take memory
_MAX_HEADER = 4000  # characters; clients refuse longer ones
_NOTES: ContextVar[dict[str, list[str]]] = ContextVar("notes")  # for the headers x-crackseg-warning and -remark
_JOINED = {"warning": " ", "remark": "; "}
_BASE64 = frozenset(string.ascii_letters + string.digits + "+/=" + string.whitespace)
_DRAIN_FACTOR = 64  # how much of a request that is too large is read and dropped, in limits

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def main() -> None:
    """Load the model and answer requests until the process is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model_uri")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--max-bytes", type=int, required=True)
    parser.add_argument("--max-pixels", type=int, required=True)
    parser.add_argument("--warning", default="")
    arguments = parser.parse_args()
    import mlflow
    import uvicorn

    log = logging.getLogger("crackseg")
    log.setLevel(logging.ERROR)  # `crackseg serve` has already shown the warning of the version
    model = mlflow.pyfunc.load_model(arguments.model_uri)
    log.setLevel(logging.NOTSET)
    app = build_app(
        model,
        name=arguments.model_uri,
        max_bytes=arguments.max_bytes,
        max_pixels=arguments.max_pixels,
        warning=arguments.warning,
    )
    print(f"{arguments.model_uri} answers at http://{HOST}:{arguments.port}/invocations (Ctrl-C ends)", flush=True)
    uvicorn.run(app, host=HOST, port=arguments.port, log_level=os.environ.get("UVICORN_LOG_LEVEL", "warning"))


def build_app(model: Any, *, name: str, max_bytes: int, max_pixels: int, warning: str = "") -> "RequestLimit":
    """Build MLflow's scoring server for a model, with our limits.

    Args:
        model: from ``mlflow.pyfunc.load_model``.
        name: answers carry it in the header ``x-crackseg-model``.
        max_bytes: of a request's body.
        max_pixels: of a request's images together.
        warning: carried by every answer in the header ``x-crackseg-warning``, before what the version says of the
            photographs; "" for none. How photographs were read goes into ``x-crackseg-remark``.
    """
    from fastapi import Request
    from fastapi.responses import JSONResponse
    from mlflow.pyfunc import PyFuncModel, scoring_server

    app = scoring_server.init(cast(PyFuncModel, LimitedModel(model, max_pixels)))

    # MLflow turns every exception of the model into an answer, so this one was raised by reading the request.
    @app.exception_handler(Exception)
    async def explain(request: Request, error: Exception) -> JSONResponse:
        message = f"the request cannot be understood: {type(error).__name__}: {str(error)[:300]}"
        return JSONResponse({"error_code": "BAD_REQUEST", "message": message}, status_code=400)

    return RequestLimit(app, name=name, max_bytes=max_bytes, warning=warning)


class LimitedModel:
    """A loaded model that checks image sizes before decoding, and limits the number of requests at a time.

    Args:
        model: from ``mlflow.pyfunc.load_model``.
        max_pixels: a request whose images have more together is refused: one of many images would keep all others
            waiting long after its own client has given up.
    """

    def __init__(self, model: Any, max_pixels: int) -> None:
        from mlflow.exceptions import MlflowException
        from PIL import Image

        Image.MAX_IMAGE_PIXELS = None  # ours says what to do
        self._model = model
        self._exception = MlflowException
        self._max_pixels = max_pixels
        self._turns = threading.BoundedSemaphore(_AT_ONCE)
        self.metadata = model.metadata

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        """Answer as the model does; MlflowException (status 400) if there is no image, or one is too large."""
        import pandas as pd
        from mlflow.exceptions import MlflowException

        try:
            if not isinstance(data, pd.DataFrame) or list(data.columns) != ["image"] or data.empty:
                raise MlflowException.invalid_parameter_value(
                    'expected {"dataframe_records": [{"image": "<base64 of a photograph>"}, ...]} with at least one '
                    "photograph and no other column"
                )
            total = 0
            for number, content in enumerate(data["image"]):
                width, height = _read_size(content)
                total += width * height
                if total > self._max_pixels:
                    raise MlflowException.invalid_parameter_value(
                        f"row {number} of column image: {width} x {height} pixels"
                        + (f" bring the request to {total / 1e6:.3g} megapixels," if number else " are")
                        + f" over the limit of {self._max_pixels / 1e6:g} megapixels; send fewer images at a time, or "
                        "cut them into parts first (`crackseg serve --max-megapixels` sets the limit)"
                    )
            with self._turns:
                return self._predict(data, params)
        except MlflowException as error:
            raise _make_refusal(error) from error

    def _predict(self, data: Any, params: dict[str, Any] | None) -> Any:
        """Predict, and keep the version's warnings and remarks for the answer's headers."""
        try:
            version = self._model.unwrap_python_model()
        except (AttributeError, self._exception):
            version = None
        # An older version may have no notes.
        said = {kind: getattr(version, f"{kind}s", None) for kind in ("warning", "remark")}
        for variable in said.values():
            if variable is not None:
                variable.set(())
        answer = self._model.predict(data, params=params)
        notes = _NOTES.get({})
        for kind, variable in said.items():
            if variable is not None:
                notes.setdefault(kind, []).extend(variable.get())
        return answer


def _make_refusal(error: Any) -> Exception:
    """Copy an error so that MLflow cannot put the whole request, maybe megabytes, before its message."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import ErrorCode

    class Refusal(MlflowException):
        def __setattr__(self, name: str, value: Any) -> None:
            if not (name == "message" and str(value).startswith("Failed to predict data")):
                super().__setattr__(name, value)

    return Refusal(error.message, error_code=ErrorCode.Value(error.error_code))


def _read_size(content: Any) -> tuple[int, int]:
    """Read width and height from the header, without decoding; 0, 0 if Pillow does not know the format."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.size
    except Exception:
        return 0, 0


def _find_fault_of_text(body: bytes) -> str:
    """Return an error text for the first row of a request that is not base64 text; "" if all are.

    MLflow's decoder drops characters that are not base64, so the model would see an empty or truncated image.
    """
    try:
        request = json.loads(body)
        if "dataframe_records" in request:
            texts = [record["image"] for record in request["dataframe_records"]]
        else:
            table = request["dataframe_split"]
            texts = [row[table["columns"].index("image")] for row in table["data"]]
    except (ValueError, LookupError, TypeError):
        return ""
    expected = "expected the base64 text of a photograph's file"
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            continue
        shown = text if len(text) <= 40 else f"{text[:40]}…"
        if not text.strip():
            return f"row {number} of column image: the text is empty; {expected}"
        if odd := sorted(set(text) - _BASE64):
            return (
                f"row {number} of column image: {shown!r} is not base64 (it contains {odd[0]!r}); {expected}, without "
                "a prefix such as data:image/jpeg;base64,"
            )
        if sum(not c.isspace() for c in text) % 4:
            return f"row {number} of column image: {shown!r} is base64 that was cut short; {expected}"
    return ""


class RequestLimit:
    """ASGI middleware: bodies over a limit get status 413 and are never held in memory.

    Args:
        app: the application that answers all other requests.
        name: of the model, for the header ``x-crackseg-model`` of each answer.
        max_bytes: of a body.
        warning: for the header ``x-crackseg-warning`` of each answer; "" for none.
    """

    def __init__(self, app: Any, *, name: str, max_bytes: int, warning: str = "") -> None:
        self.app = app
        self.warning = warning
        self.name = name
        self.max_bytes = max_bytes

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        announced = int(headers.get(b"content-length", b"0"))
        if announced > self.max_bytes and headers.get(b"expect", b"").lower() == b"100-continue":
            await self._refuse(send)  # the client waits for permission to send its body
            return
        body = bytearray()
        num_bytes = 0
        more = True
        while more and num_bytes <= _DRAIN_FACTOR * self.max_bytes:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            chunk = message.get("body", b"")
            num_bytes += len(chunk)
            # A refusal in the middle of sending reaches many clients as a broken connection, so the rest is read.
            if max(num_bytes, announced) > self.max_bytes:
                body.clear()
            else:
                body += chunk
            more = message.get("more_body", False)
        if max(num_bytes, announced) > self.max_bytes:
            await self._refuse(send)
            return
        if scope["method"] == "POST" and b"content-type" not in headers:
            await _answer(send, 415, "BAD_REQUEST", "there is no header Content-Type; expected application/json")
            return
        content = bytes(body)
        waiting = [{"type": "http.request", "body": content, "more_body": False}]

        async def replay() -> Message:
            return waiting.pop() if waiting else await receive()

        notes = {"warning": [self.warning] if self.warning else []}
        _NOTES.set(notes)  # they are the same in the thread that predicts

        refused: list[str] = []

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", []), (b"x-crackseg-model", self.name.encode())]
                for kind, sentences in notes.items():
                    said = " ".join(_JOINED[kind].join(dict.fromkeys(sentences)).split())[:_MAX_HEADER]
                    if said:
                        headers.append((f"x-crackseg-{kind}".encode(), said.encode("ascii", "replace")))
                message["headers"] = headers
                if message["status"] == 400 and (fault := _find_fault_of_text(content)):
                    refused.append(fault)
                    await _answer(send, 400, "INVALID_PARAMETER_VALUE", fault)
            if not refused:
                await send(message)

        await self.app(scope, replay, send_named)

    async def _refuse(self, send: Send) -> None:
        await _answer(
            send,
            413,
            "REQUEST_TOO_LARGE",
            f"the request is over the limit of {self.max_bytes / 1e6:g} megabytes; send fewer or smaller images "
            "(`crackseg serve --max-megabytes` sets the limit)",
        )


async def _answer(send: Send, status: int, code: str, message: str) -> None:
    body = json.dumps({"error_code": code, "message": message}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    main()
