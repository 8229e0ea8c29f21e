"""Ways to use a registered version: HTTP server, Spark, export, inspection page."""
