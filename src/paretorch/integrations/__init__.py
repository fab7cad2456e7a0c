"""Adapters for training frameworks: one file per framework, which imports it.

A framework's events go in; calls of a Fork's or a Balancer's public methods and numbers for its loggers come out. Every file must
work without the other frameworks. Nothing else in the package imports this one, and it must not know methods, workloads or runs.
"""
