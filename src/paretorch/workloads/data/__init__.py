"""Where samples come from: one file per data set."""
