"""Decisions: values in, values out. Nothing here changes anything; the config alone reads its own file."""
