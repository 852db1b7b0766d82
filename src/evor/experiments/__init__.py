"""Experiments that own a verb and a page each. None imports another."""
