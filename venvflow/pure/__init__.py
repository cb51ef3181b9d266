"""Decisions: values in, values out. Nothing here changes anything.

The config alone reads: its own file, and whose that and the store are.
"""
