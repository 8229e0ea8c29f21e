"""Cracks as things with a length and a width: from a mask to lines, figures, tables and an annotated picture."""
