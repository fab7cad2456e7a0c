"""Train one PyTorch model on many losses."""
