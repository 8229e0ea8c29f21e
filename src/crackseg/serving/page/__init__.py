"""Inspection page of ``crackseg app``: shows the cracks of dropped photographs, on this machine only."""
