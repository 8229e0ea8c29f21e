"""Beyond one run: search, the paper's configurations, comparisons, studies."""
