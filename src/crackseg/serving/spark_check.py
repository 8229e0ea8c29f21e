"""Check that Spark can run here, before anything slow is imported."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

from crackseg.errors import CracksegError


def require_spark() -> None:
    """Check that pyspark and Java are installed.

    Raises:
        CracksegError: one of them is missing; the message says what to install.
    """
    if find_spec("pyspark") is None:
        raise CracksegError("batch scoring needs pyspark: pip install 'crackseg[spark]'")
    home = os.environ.get("JAVA_HOME")
    if not (Path(home, "bin", "java").is_file() if home else shutil.which("java")):
        raise CracksegError(
            "Spark needs Java 17 or newer, and there is no "
            + (f"bin/java in JAVA_HOME, {home}" if home else "java on the PATH")
            + "; install e.g. openjdk-17-jre-headless"
        )
