"""Inspection of a structure: the report to hand over, and what its photographs say of where they were taken."""
