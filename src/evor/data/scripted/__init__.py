"""OGBench's scripted policies record new datasets."""
