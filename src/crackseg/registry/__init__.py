"""Registered model: package, register, promote and load versions."""
