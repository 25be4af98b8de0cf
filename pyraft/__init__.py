"""pyraft: replicated state machines on Raft."""
__version__ = "0.1.0"
