"""`crackseg compare`: what differs between runs, and whether the difference in score is more than chance."""
