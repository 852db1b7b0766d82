"""From files to batches: load or generate, lay out transitions, sample."""
