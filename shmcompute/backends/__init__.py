"""Backends: interchangeable runners of plans."""
