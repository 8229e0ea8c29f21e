"""`crackseg compare`: differences of settings and scores between runs, with confidence intervals."""
