"""Trained policies: how they decide, and how they are loaded and exported."""
