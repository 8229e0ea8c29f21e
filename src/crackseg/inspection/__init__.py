"""Inspection of a structure: the report to hand over, and growth of cracks between two visits."""
