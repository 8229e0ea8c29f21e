"""Cracks as things with a length and a width: center lines, post-processing, measurements."""
