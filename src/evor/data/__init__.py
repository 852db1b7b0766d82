"""Files become batches: load or generate, lay out transitions, sample."""
