"""Training: a run as plain values, the parts it names, the one loop, and its record on disk."""
