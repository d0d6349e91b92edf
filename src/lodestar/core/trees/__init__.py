"""Boosted trees outside their libraries: read from their files, and walked in machine code."""
