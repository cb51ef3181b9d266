"""The store as a whole, what changed in a venv, and the ways between a venv's directory and the store."""
