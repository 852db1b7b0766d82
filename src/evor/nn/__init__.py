"""Networks, flows, objectives and optimisation: what is computed on arrays."""
