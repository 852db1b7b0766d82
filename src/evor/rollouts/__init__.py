"""A policy meets environments."""
