"""Proof that a value ranks, on recorded episodes that it has not seen (`evor audit`)."""
