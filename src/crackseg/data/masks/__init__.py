"""Read ground truth files of any format as crack masks."""
