"""Inspection of a structure: the report to hand over, growth of cracks between two visits, orthomosaics."""
