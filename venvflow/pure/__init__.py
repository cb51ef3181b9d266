"""Decisions: values in, values out. Nothing here reads or changes anything."""
