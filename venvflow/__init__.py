"""Declarative, incremental builds of many Python virtual environments."""

__version__ = "0.1.0"
