"""The registered model as MLflow loads and serves it: from code and a state dict, without pickles.

MLflow runs this file ("models from code"), with the package next to it, so that a version can be loaded where
crackseg is not installed.
"""

from __future__ import annotations

import base64
import io
import logging
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature, set_model
from mlflow.pyfunc import PythonModel
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

from crackseg.data.catalog import warn_of_source
from crackseg.data.images.files import MAX_PIXELS, Decoded, decode_photograph, encode_png
from crackseg.errors import CracksegError
from crackseg.inference.detector import CrackAnalyzer
from crackseg.inference.drift import FIGURES, count_reference, measure_photograph, warn_of_reference, warn_of_use

_log = logging.getLogger("crackseg")
_COLUMNS = {
    "mask": DataType.string,
    "crack_fraction": DataType.double,
    "crack_length_px": DataType.double,
    "score": DataType.double,
}
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(DataType.binary, "image")]),
    outputs=Schema([ColSpec(dtype, name) for name, dtype in _COLUMNS.items()]),
    params=ParamSchema(
        [
            ParamSpec("threshold", DataType.double, None),
            ParamSpec("return_probability", DataType.boolean, False),
            ParamSpec("return_notes", DataType.boolean, False),
        ]
    ),
)
_FIGURES = ("confidence", "brightness", "contrast", "sharpness")
_NOTES = ("remark", "warning", "error")
_NPY_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class CrackModel(PythonModel):
    """MLflow model that predicts crack masks of photographs.

    Input is a data frame with a column ``image``. A cell holds the bytes of an encoded photograph (JPEG, PNG, TIFF and
    other formats that Pillow reads), the bytes of a ``.npy`` file, or a NumPy array; arrays are uint8 (H, W, 3), RGB.

    Output has a row for each: ``mask`` (8-bit PNG of 0 and 255 as base64 text, since Spark's UDFs take no binary
    results), ``crack_fraction`` (fraction of pixels, in [0, 1]), ``crack_length_px`` (length of the thinned mask,
    diagonal steps counting √2), ``score`` (highest crack probability, in [0, 1]).

    Params: ``threshold`` (in [0, 1]; None, the default, is the operating threshold), ``return_probability`` (adds the
    column ``probability``: a 16-bit PNG, full scale is 1, as base64 text) and ``return_notes`` (adds the values
    ``confidence``, ``brightness``, ``contrast`` and ``sharpness``, and the texts ``remark``, how the photograph was
    read, ``warning`` and ``error``; a row that is refused has its reason in ``error``, no mask and no values; the other
    rows are predicted).
    """

    # MLflow checks the parameters' names: they must be `context` and `model_input`. It also reads the type hints of
    # `predict`, and accepts only this one without a warning.
    def load_context(self, context: Any) -> None:
        """Read the weights and the settings."""
        artifacts = context.artifacts
        self.analyzer = CrackAnalyzer.load(Path(artifacts["weights"]), Path(artifacts["settings"]))
        # For a server: it sets empty tuples before a prediction and reads the warnings and remarks after it.
        self.warnings: ContextVar[tuple[str, ...] | None] = ContextVar("warnings", default=None)
        self.remarks: ContextVar[tuple[str, ...] | None] = ContextVar("remarks", default=None)
        if warning := warn_of_source(self.analyzer.settings.data_source):
            _log.warning("WARNING: %s", warning)

    def predict(self, context, model_input: pd.DataFrame, params=None) -> pd.DataFrame:  # type: ignore[no-untyped-def]
        """Find the cracks of each photograph of the column ``image``; see the class.

        Raises:
            MlflowException: with the code INVALID_PARAMETER_VALUE, which a scoring server answers with status 400: a
                row is no photograph, or a param is out of its range. The message names the row.
        """
        params = params or {}
        threshold, with_probability = params.get("threshold"), params.get("return_probability", False)
        if threshold is not None and not 0 <= threshold <= 1:
            raise MlflowException.invalid_parameter_value(
                f"threshold is {threshold}; expected a probability in [0, 1], or null for the model's own"
            )
        noted = bool(params.get("return_notes", False))
        columns = [
            *_COLUMNS,
            *(["probability"] if with_probability else []),
            *((*_FIGURES, *_NOTES) if noted else []),
        ]
        rows, figures, remarks = [], [], []
        for number, content in enumerate(model_input["image"]):
            try:
                row = self._predict_row(content, threshold, with_probability=with_probability)
            except CracksegError as error:
                if not noted:
                    raise MlflowException.invalid_parameter_value(
                        f"row {number} of column image: {error}"
                    ) from error
                row = {"error": _in_one_line(error)}
            except Exception as error:  # with notes, one bad row must not end a job of thousands
                if not noted:
                    raise
                row = {"error": f"the model failed with {type(error).__name__}: {_in_one_line(error)}"}
            if "error" in row:
                row = {"mask": "", "probability": "", "remark": "", "warning": ""} | row
            else:
                row["error"] = ""
                figures.append({name: row[name] for name in FIGURES})
                if row["remark"]:
                    remarks.append(f"row {number}: {row['remark']}")
            rows.append(row)
        if self.warnings.get() is not None:
            settings = self.analyzer.settings
            few = warn_of_reference(count_reference(settings.reference))
            self.warnings.set((*warn_of_use(settings, figures), *([few] if few else [])))
        if self.remarks.get() is not None:
            self.remarks.set(tuple(remarks))
        return pd.DataFrame(rows, columns=columns)

    def _predict_row(self, content: Any, threshold: float | None, *, with_probability: bool) -> dict[str, Any]:
        """Predict one photograph: all columns but ``error``."""
        photograph = _decode(content)
        prediction = self.analyzer.analyze(photograph.image_HW3, threshold=threshold)
        row = {
            name: getattr(prediction, name)
            for name in ("crack_fraction", "crack_length_px", "score", "confidence")
        }
        row |= measure_photograph(photograph.image_HW3)
        row["mask"] = _encode(prediction.crack_mask.astype(np.uint8) * np.uint8(255))
        if with_probability:
            row["probability"] = _encode(np.rint(prediction.crack_prob * 65535).astype(np.uint16))
        return row | {
            "remark": photograph.remark,
            "warning": " ".join(warn_of_use(self.analyzer.settings, [row])),
        }


def _decode(content: Any) -> Decoded:
    """Decode the photograph in a cell; arrays are checked by the analyzer."""
    if isinstance(content, np.ndarray):
        _check_size(content.shape)
        return Decoded(content)
    if not isinstance(content, bytes | bytearray | memoryview):
        raise CracksegError(
            f"expected the bytes of an encoded photograph or a uint8 array (H, W, 3), got {type(content).__name__}"
        )
    content = bytes(content)
    if content.startswith(b"\x93NUMPY"):
        return Decoded(_read_npy(content))
    return decode_photograph(content, name="the photograph")


def _read_npy(content: bytes) -> np.ndarray:
    """Read a .npy file's bytes in place: NumPy's own reader would allocate any size that the header claims."""
    stream = io.BytesIO(content)
    try:
        shape, by_columns, dtype = _NPY_HEADERS[np.lib.format.read_magic(stream)](stream)
        if dtype != np.uint8 or by_columns:
            raise CracksegError(f"expected a .npy of uint8 in C order, got {dtype}")
        return np.frombuffer(content, np.uint8, offset=stream.tell()).reshape(_check_size(shape))
    except (KeyError, ValueError, EOFError) as error:
        raise CracksegError(f"not a .npy file that can be read ({error})") from error


def _check_size(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) == 3 and shape[0] * shape[1] > MAX_PIXELS:
        raise CracksegError(
            f"{shape[1]} x {shape[0]} pixels are over the limit of {MAX_PIXELS / 1e6:.0f} megapixels; "
            "cut the image into parts first"
        )
    return shape


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]


def _encode(values: np.ndarray) -> str:
    return base64.b64encode(encode_png(values)).decode()


set_model(CrackModel())
