"""The paper that is reproduced: its cells, and what stands in its tables."""
