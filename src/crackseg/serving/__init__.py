"""A registered version at work: HTTP, Spark, export, the inspection page."""
