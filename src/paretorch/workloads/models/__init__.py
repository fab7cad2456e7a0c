"""Encoders and heads: one file per family."""
