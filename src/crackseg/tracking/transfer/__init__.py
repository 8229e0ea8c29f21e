"""Copy a tracking store to another machine: export to a folder, import from it."""
