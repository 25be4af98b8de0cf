"""Stores of the log and the ballot."""
