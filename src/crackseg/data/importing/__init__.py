"""Import datasets as people have them into the canonical layout."""
