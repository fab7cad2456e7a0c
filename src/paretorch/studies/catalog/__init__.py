"""The shipped studies: one file each, with a function ``study(scale)`` that returns a ``Study``."""
