"""Losses and metrics of numbers for each pixel: classes, distances, directions, offsets."""
