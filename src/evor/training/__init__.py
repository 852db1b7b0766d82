"""Configs, updates, checkpoints and the loop around them."""
