"""Inverse reinforcement learning with resets (GUITAR), on an exact example and in simulators."""
