"""Stores of snapshots."""
