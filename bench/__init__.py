"""The benchmark: venvflow against what people use today, as ratios measured in one run, in turn.

``python -m bench --quick`` takes some three minutes, ``python -m bench`` the time that it needs. Absolute
times on a shared machine prove nothing, so that the table gives ratios only their target.

A row of the table is one module in :mod:`bench.rows` with a function that takes a :class:`bench.world.World`
and returns lines of the table; it is registered in ``bench/rows/__init__.py``, and that is all.
"""
