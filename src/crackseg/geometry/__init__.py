"""Cracks as lines and connected components: centre lines, post-processing, measurements."""
