"""``python -m crackseg``."""

from crackseg.cli import main

main()
