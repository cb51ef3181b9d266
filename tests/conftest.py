"""What holds for all tests: the world outside must not change their results."""

from __future__ import annotations

import os
import sys

from hypothesis import settings

# Tests run the Python of venvs that they compare file by file afterwards; a shell may or may not forbid it
# to write bytecode there. Those that are about bytecode unset this for their children.
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
sys.dont_write_bytecode = True

# A machine that is busy is no reason to fail.
settings.register_profile("venvflow", deadline=None)
settings.load_profile("venvflow")
