"""Ground truth files of any format to crack masks."""
