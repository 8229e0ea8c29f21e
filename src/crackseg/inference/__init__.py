"""From a photograph of any size to a crack probability map and a crack mask."""
