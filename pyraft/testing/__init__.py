"""For users' own tests: checks for stores, transports and state machines."""
