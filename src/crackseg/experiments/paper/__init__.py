"""Reproduction of the paper: its configurations, its tables and figures."""
