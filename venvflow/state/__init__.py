"""The store as one thing, and the ways between it and the directories of venvs."""
