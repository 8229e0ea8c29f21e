"""Carrying a tracking store to another place: a folder that any store can be written to and filled from."""
