"""MLflow's scoring server for one version, with limits on the size of requests and images.

`crackseg serve` runs this file by its path, in isolated mode, and it imports nothing of crackseg: the version answers
with the code that it was registered with, not with the installed code.
"""

import argparse
import asyncio
import io
import json
import logging
import os
import string
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from fastapi import FastAPI, Request, Response

HOST = "127.0.0.1"
_AT_ONCE = 2  # predictions: one computes while another decodes; more would only take memory
_MAX_HEADER = 4000  # characters; clients refuse longer ones
_NOTES: ContextVar[dict[str, list[str]]] = ContextVar("notes")  # for the headers x-crackseg-warning and -remark
_JOINED = {"warning": " ", "remark": "; "}
_BASE64 = frozenset(string.ascii_letters + string.digits + "+/=" + string.whitespace)
_DRAIN_FACTOR = 64  # how much of a request that is too large is read and dropped, in limits
_HELD_FACTOR = 4  # bodies in memory together, in limits; each takes about ten times its size until it is answered
_WAIT_S = 30.0  # for memory, before a client is told to come again
_READ_S = 120.0  # for the whole body: a client that stalls must not keep others waiting


def main() -> None:
    """Load the model and answer requests until the process is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model_uri")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--max-bytes", type=int, required=True)
    parser.add_argument("--max-pixels", type=int, required=True)
    parser.add_argument("--warning", default="")
    parser.add_argument("--name", default="")
    arguments = parser.parse_args()
    import mlflow
    import uvicorn

    name = arguments.name or arguments.model_uri
    log = logging.getLogger("crackseg")
    log.setLevel(logging.ERROR)  # `crackseg serve` has already shown the warning of the version
    model = mlflow.pyfunc.load_model(arguments.model_uri)
    log.setLevel(logging.NOTSET)
    app = build_app(
        model,
        name=name,
        max_bytes=arguments.max_bytes,
        max_pixels=arguments.max_pixels,
        warning=arguments.warning,
    )
    print(f"{name} answers at http://{HOST}:{arguments.port}/invocations (Ctrl-C ends)", flush=True)
    uvicorn.run(app, host=HOST, port=arguments.port, log_level=os.environ.get("UVICORN_LOG_LEVEL", "warning"))


def build_app(model: Any, *, name: str, max_bytes: int, max_pixels: int, warning: str = "") -> "FastAPI":
    """Build MLflow's scoring server for a model, with our limits.

    A body over the limit gets status 413 and is never held in memory.

    Args:
        model: from ``mlflow.pyfunc.load_model``.
        name: answers carry it in the header ``x-crackseg-model``.
        max_bytes: of a request's body.
        max_pixels: of a request's images together.
        warning: carried by every answer in the header ``x-crackseg-warning``, before what the version says of the
            photographs; "" for none. How photographs were read goes into ``x-crackseg-remark``.
    """
    from fastapi import Request, Response
    from mlflow.pyfunc import PyFuncModel, scoring_server
    from starlette.requests import ClientDisconnect

    app = scoring_server.init(cast(PyFuncModel, LimitedModel(model, max_pixels)))
    memory = _Memory(_HELD_FACTOR * max_bytes)
    schema = model.metadata.get_params_schema()
    known_params = tuple(param.name for param in schema.params) if schema else ()

    @app.middleware("http")
    async def hold(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        try:
            async with memory.reserve(min(_announced_bytes(request, max_bytes), max_bytes)):
                return await answer(request, call_next)
        except _Busy:
            with suppress(TimeoutError, ClientDisconnect):
                await asyncio.wait_for(_drop_body(request), _READ_S)
            message = (
                f"too many requests at once: none of their memory became free within {_WAIT_S:g} s; send it again"
            )
            return _refuse(503, "TEMPORARILY_UNAVAILABLE", message, {"retry-after": "10"})

    async def answer(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        try:
            body = await asyncio.wait_for(_read_body(request, max_bytes), _READ_S)
            if body is not None and await request.is_disconnected():
                raise ClientDisconnect
        except ClientDisconnect:
            return Response(status_code=400)  # no one reads it
        except TimeoutError:
            return _refuse(408, "REQUEST_TIMEOUT", f"the request did not arrive whole within {_READ_S:g} s")
        notes = {"warning": [warning] if warning else []}
        if body is None:
            response = _refuse(
                413,
                "REQUEST_TOO_LARGE",
                f"the request is over the limit of {max_bytes / 1e6:g} megabytes; send fewer or smaller images "
                "(`crackseg serve --max-megabytes` sets the limit)",
            )
        elif request.method == "POST" and "content-type" not in request.headers:
            response = _refuse(415, "BAD_REQUEST", "there is no header Content-Type; expected application/json")
        elif unknown := await asyncio.to_thread(_find_unknown_param, body, known_params):
            response = _refuse(400, "INVALID_PARAMETER_VALUE", unknown)
        else:
            request._body = body  # call_next passes it on
            _NOTES.set(notes)  # they are the same in the thread that predicts
            try:
                response = await call_next(request)
                if response.status_code >= 400:
                    response = await _without_trace(response)
            except Exception as error:  # from reading the request: MLflow answers exceptions of the model
                message = f"the request cannot be understood: {type(error).__name__}: {str(error)[:300]}"
                logging.getLogger("crackseg").warning(message, exc_info=error)
                response = _refuse(400, "BAD_REQUEST", message)
            if response.status_code == 400 and (fault := await asyncio.to_thread(_find_fault_of_text, body)):
                response = _refuse(400, "INVALID_PARAMETER_VALUE", fault)
        response.headers["x-crackseg-model"] = name.encode().decode("latin-1")  # UTF-8 in a header
        for kind, sentences in notes.items():
            if said := " ".join(_JOINED[kind].join(dict.fromkeys(sentences)).split())[:_MAX_HEADER]:
                response.headers[f"x-crackseg-{kind}"] = said.encode("ascii", "replace").decode()
        return response

    return app


class _Busy(Exception):
    """No memory became free in time."""


class _Memory:
    """Bytes of bodies that may be held at a time, over all requests.

    Args:
        num_bytes: free at first.
    """

    def __init__(self, num_bytes: int) -> None:
        self._free = num_bytes
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def reserve(self, num_bytes: int) -> AsyncIterator[None]:
        """Wait for memory, and hold it; :class:`_Busy` if there is none in time."""
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(lambda: self._free >= num_bytes), _WAIT_S)
            except TimeoutError as error:
                raise _Busy from error
            self._free -= num_bytes
        try:
            yield
        finally:
            self._free += num_bytes
            async with self._changed:
                self._changed.notify_all()


def _announced_bytes(request: "Request", otherwise: int) -> int:
    """Return the size that the header announces; ``otherwise`` for a request in chunks, which announces none."""
    chunked = "chunked" in request.headers.get("transfer-encoding", "").lower()
    return otherwise if chunked else int(request.headers.get("content-length", 0))


async def _drop_body(request: "Request") -> None:
    """Read a body without holding it: many clients see a refusal only after they have sent all."""
    async for _ in request.stream():
        pass


async def _read_body(request: "Request", max_bytes: int) -> bytes | None:
    """Read a request's body; None if it is over the limit, and then nothing of it is held."""
    announced = _announced_bytes(request, 0)
    if announced > max_bytes and request.headers.get("expect", "").lower() == "100-continue":
        return None  # the client waits for permission to send its body
    body = bytearray()
    num_bytes = 0
    async for chunk in request.stream():
        num_bytes += len(chunk)
        if num_bytes > _DRAIN_FACTOR * max_bytes:
            return None
        # A refusal in the middle of sending reaches many clients as a broken connection, so the rest is read.
        if max(num_bytes, announced) > max_bytes:
            body.clear()
        else:
            body += chunk
    return None if max(num_bytes, announced) > max_bytes else bytes(body)


async def _without_trace(response: Any) -> "Response":
    """Return MLflow's refusal of a request without its traceback, which names files of this machine."""
    from fastapi.responses import JSONResponse, Response

    body = b"".join([chunk async for chunk in response.body_iterator])
    try:
        content = json.loads(body)
        del content["stack_trace"]
        return JSONResponse(content, response.status_code)
    except (ValueError, KeyError, TypeError):  # another kind of answer
        return Response(body, response.status_code, media_type=response.headers.get("content-type"))


def _refuse(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> "Response":
    from fastapi.responses import JSONResponse

    return JSONResponse(
        {"error_code": code, "message": message}, status, {"connection": "close", **(headers or {})}
    )


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
    except Exception:  # a damaged header can raise almost any error in Pillow's readers
        return 0, 0


def _find_unknown_param(body: bytes, known: Sequence[str]) -> str:
    """Return an error text for a param that the model does not have; "" if there is none.

    MLflow's server would ignore it, and the client would not learn that its answer is of other settings.
    """
    if b'"params"' not in body:
        return ""
    try:
        params = json.loads(body).get("params")
    except (ValueError, AttributeError, RecursionError):
        return ""
    unknown = [name for name in params if name not in known] if isinstance(params, dict) else []
    return f"params: the model has no {unknown[0]!r}; expected {', '.join(known) or 'none'}" if unknown else ""


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
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    expected = "expected the base64 text of a photograph's file"
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            return f"row {number} of column image: {json.dumps(text)[:40]} is no text; {expected}"
        shown = text if len(text) <= 40 else f"{text[:40]}…"
        if not text.strip():
            return f"row {number} of column image: the text is empty; {expected}"
        if odd := sorted(set(text) - _BASE64):
            return (
                f"row {number} of column image: {shown!r} is not base64 (it contains {odd[0]!r}); {expected}, without "
                "a prefix such as data:image/jpeg;base64,"
            )
        if len("".join(text.split())) % 4:
            return f"row {number} of column image: {shown!r} is base64 that was cut short; {expected}"
    return ""


if __name__ == "__main__":
    main()
