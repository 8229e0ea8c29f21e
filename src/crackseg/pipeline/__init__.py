"""The stages of dvc.yaml, one module each: read params.yaml, do the job, tell MLflow."""
