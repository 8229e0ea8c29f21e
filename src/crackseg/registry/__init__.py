"""Versions of the registered model, and what is in production."""
