"""The stages of dvc.yaml, one module each: read params.yaml, run, record in MLflow."""
