"""Settings for all tests."""

import os

# Two test processes with two OpenMP threads each on two cores wait for each other most of the time.
os.environ["OMP_NUM_THREADS"] = "1"
