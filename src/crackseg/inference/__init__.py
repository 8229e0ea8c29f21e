"""Predict a crack probability map and a crack mask for a photograph of any size."""
