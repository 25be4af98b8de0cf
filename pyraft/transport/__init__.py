"""Transports: how servers reach each other."""
