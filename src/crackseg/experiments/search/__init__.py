"""Hyperparameter search with Optuna: each trial is a training run outside the pipeline."""
