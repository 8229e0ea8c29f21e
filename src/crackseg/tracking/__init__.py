"""The tracking store: where it is, opening and resuming runs, records that wait for it."""
