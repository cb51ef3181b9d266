"""The state of a venv, found without changing anything: by stat, and by reading small files."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from venvflow.cli.glance import Glance
from venvflow.errors import EnvironmentFailure, shown
from venvflow.places import Receipt, Registration
from venvflow.scan import walk
from venvflow.steps.drift import Drift, drift_of
from venvflow.steps.hash_lockfiles import key_is_current
from venvflow.steps.job import Job, read_key
from venvflow.steps.replace import matcher_of

State = Literal[
    "up to date",
    "not built",
    "lock changed",
    "lock missing",
    "changed by hand",
    "damaged",
    "not ours",
    "in the way",
    "not checked",
]
