"""Faults made on purpose, what they leave, and the counts of the long trials."""
