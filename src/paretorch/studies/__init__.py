"""Studies: what is compared, the runner that trains it, and the statistics that judge it."""
