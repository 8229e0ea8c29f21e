"""The inspection page of ``crackseg app``: photographs in, cracks out, on this machine alone."""
