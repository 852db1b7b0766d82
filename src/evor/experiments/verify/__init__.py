"""Every objective on problems whose return distribution is known."""
