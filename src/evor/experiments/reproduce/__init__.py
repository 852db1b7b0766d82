"""The paper's experiment: agents, datasets and seeds in one table."""
