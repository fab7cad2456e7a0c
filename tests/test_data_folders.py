"""Folders of data sets with hidden folders, extensions in upper case, and splits that cannot be trained on."""

from __future__ import annotations
