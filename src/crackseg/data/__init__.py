"""Datasets: import, validation, preparation, and loading as training batches."""
