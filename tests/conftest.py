"""Settings for all tests."""

from hypothesis import settings

# No deadline: how long an example takes says something about the machine, not about the code.
# Derandomized: a test gives the same verdict each time; fresh seeds are for soak runs
# (pytest --hypothesis-profile=fresh).
settings.register_profile("pyraft", deadline=None, derandomize=True)
settings.register_profile("fresh", deadline=None)
settings.load_profile("pyraft")
