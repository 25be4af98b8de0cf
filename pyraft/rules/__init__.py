"""What the Raft paper decides, as pure functions of values."""
