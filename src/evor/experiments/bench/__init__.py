"""Seconds per update and per decision, against the machine's own limit."""
