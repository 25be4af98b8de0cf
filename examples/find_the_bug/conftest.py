"""Lets the tests import what is beside them, however pytest was told to import."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
