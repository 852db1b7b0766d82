"""What acts: a trained policy, how it decides, how it is loaded and exported."""
