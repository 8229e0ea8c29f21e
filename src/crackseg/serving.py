"""The registered model: what MLflow loads and serves, from code and a state dict, without pickles.

MLflow runs this file itself ("models from code"), with the package beside it, so that a version can be loaded where
crackseg is not installed.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import ModelSignature, set_model
from mlflow.pyfunc import PythonModel
from mlflow.types import ColSpec, DataType, Schema

from crackseg.data.image_io import decode_image, encode_png
from crackseg.devices import choose_device, choose_precision
from crackseg.inference import Predictor
from crackseg.models.weights_file import load_network
from crackseg.params import PredictParams

SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(DataType.binary, "image")]),
    outputs=Schema(
        [
            ColSpec(DataType.string, "mask"),
            ColSpec(DataType.double, "crack_fraction"),
            ColSpec(DataType.double, "score"),
        ]
    ),
)


class CrackModel(PythonModel):
    """Photographs in, crack masks out.

    Input is a data frame with a column ``image`` of encoded photographs (JPEG, PNG, TIFF bytes). Output has a row
    for each: ``mask`` (8-bit PNG of 0 and 255 as base64 text), ``crack_fraction`` (share of pixels in [0, 1]),
    ``score`` (highest crack probability in [0, 1]).
    """

    # MLflow looks at the parameters' names: they must be `context` and `model_input`. It reads the type hints of
    # `predict` too, and takes only this one without advice.
    def load_context(self, context: Any) -> None:
        """Read the weights and what travels with them: operating threshold and tile size."""
        network, extra = load_network(Path(context.artifacts["weights"]))
        device = choose_device("auto")
        self.threshold = float(extra["operating_threshold"])
        self.predictor = Predictor(
            network,
            PredictParams(**extra["predict"]),
            device=device,
            precision=choose_precision("auto", device),
        )

    def predict(self, context, model_input: pd.DataFrame, params=None) -> pd.DataFrame:  # type: ignore[no-untyped-def]
        """Score each photograph of the column ``image``; see the class."""
        rows = []
        for number, content in enumerate(model_input["image"]):
            image = decode_image(bytes(content), name=f"image {number}")
            crack_prob = self.predictor.predict_prob(image)
            crack_mask = crack_prob >= self.threshold
            rows.append(
                {
                    "mask": base64.b64encode(encode_png(crack_mask.astype(np.uint8) * np.uint8(255))).decode(),
                    "crack_fraction": float(crack_mask.mean()),
                    "score": float(crack_prob.max()),
                }
            )
        return pd.DataFrame(rows, columns=["mask", "crack_fraction", "score"])


set_model(CrackModel())
