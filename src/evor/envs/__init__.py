"""Environments: OGBench's, and many stepped together."""
