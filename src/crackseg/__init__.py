"""crackseg: hair-thin cracks in photographs of roads and concrete, pixel by pixel."""

__version__ = "0.1.0"
