"""The tasks of this project's own example venvs: see config/venvflow.yaml."""

from venvflow.tasks import *
