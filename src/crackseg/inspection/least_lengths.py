"""Least lengths that count, in pixels; a module of its own, so that the commands say them without loading libraries."""

MIN_CRACK_PX = 10.0  # of a crack in a mosaic
MIN_GROWTH_PX = 20.0  # of a stretch that only one of two photographs shows
