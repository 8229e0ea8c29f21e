"""Speed and scale against what a user would use instead; `make bench` runs all of it."""
