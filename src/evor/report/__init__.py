"""Pages and figures from the files of a run. Imports no JAX."""
