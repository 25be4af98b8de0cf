"""Follower, candidate and leader: objects that die with the role."""
