"""The process, the machine and their files. Knows nothing of reinforcement learning."""
