"""`crackseg doctor`: is everything here that the pipeline needs, and what to do where it is not?"""
