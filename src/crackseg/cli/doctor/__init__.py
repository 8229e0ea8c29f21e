"""`crackseg doctor`: check that the machine and the project have all that the pipeline needs."""
