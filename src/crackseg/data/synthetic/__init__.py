"""Procedural crack scenes, and the sample that is made of them."""
