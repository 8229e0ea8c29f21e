"""The search beyond the paper's grid: an Optuna study of trials, each a training beside the pipeline."""
