"""Reads and changes files and runs processes: a module for each noun, and none knows the store's state."""
