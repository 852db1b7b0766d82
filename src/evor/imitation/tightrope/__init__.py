"""The tightrope: a small MDP on which every number of the theory is exact."""
