"""A fleet that was thought up: what a report of some thirty venvs shows, without making one.

Packages have the sizes of real ones, more or less; all else follows from a fixed seed, so that the picture in
the documentation is the same until somebody changes it. Other tests look at reports of real venvs.
"""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import datetime, timedelta, timezone

from venvflow.pure.report import Day, Keeper, KeptBy, Portion, ReportedSnapshot, ReportedVenv
from venvflow.report.gathering import Report
from venvflow.steps.stats import PackageCost, Sharing

NOW = datetime(2026, 11, 30, 9, 30, tzinfo=timezone.utc).timestamp()

_MIB = 1 << 20

_PACKAGES: dict[str, tuple[dict[str, int], tuple[str, ...]]] = {
    "torch": (
        {"torch/lib": 820, "torch/include": 60, "torch/_inductor": 14, "torch/testing": 9},
        ("2.9.1", "2.8.0"),
    ),
    "scipy": ({"scipy.libs": 46, "scipy/stats": 21, "scipy/sparse": 18, "scipy/linalg": 12}, ("1.16.3",)),
    "pyarrow": ({"pyarrow": 122, "pyarrow/include": 6, "pyarrow/tests": 9}, ("22.0.0", "21.0.0")),
    "pandas": (
        {"pandas/_libs": 38, "pandas/tests": 27, "pandas/core": 14, "pandas/io": 6},
        ("2.3.3", "2.2.2"),
    ),
    "numpy": (
        {"numpy.libs": 27, "numpy/_core": 23, "numpy/random": 4, "numpy/f2py": 3},
        ("2.3.5", "2.2.6", "1.26.4"),
    ),
    "scikit-learn": ({"sklearn/ensemble": 11, "sklearn/metrics": 9, "sklearn/linear_model": 8}, ("1.7.2",)),
    "matplotlib": ({"matplotlib": 14, "matplotlib/mpl-data": 9, "matplotlib/backends": 3}, ("3.10.7",)),
    "botocore": ({"botocore/data": 24, "botocore": 2}, ("1.40.70", "1.38.2")),
    "django": ({"django/contrib": 17, "django/conf": 9, "django/db": 4}, ("5.2.8", "4.2.26")),
    "cryptography": ({"cryptography/hazmat": 13}, ("46.0.3",)),
    "sqlalchemy": (
        {"sqlalchemy/dialects": 6, "sqlalchemy/orm": 5, "sqlalchemy/sql": 4},
        ("2.0.44", "2.0.41"),
    ),
    "pydantic-core": ({"pydantic_core": 5}, ("2.41.5",)),
    "fastapi": ({"fastapi": 2}, ("0.121.1",)),
    "requests": ({"requests": 1}, ("2.32.5", "2.31.0")),
}

_KINDS = {
    "api": ("fastapi", "sqlalchemy", "pydantic-core", "cryptography", "requests", "botocore"),
    "web": ("django", "cryptography", "requests", "sqlalchemy", "botocore"),
    "data": ("pandas", "pyarrow", "numpy", "scipy", "matplotlib", "requests"),
    "train": ("torch", "numpy", "scipy", "scikit-learn", "pandas"),
    "jobs": ("sqlalchemy", "requests", "botocore", "pydantic-core"),
}

_NAMES = (
    *(
        "api-accounts",
        "api-billing",
        "api-catalogue",
        "api-gateway",
        "api-orders",
        "api-search",
        "api-shipping",
    ),
    *("web-admin", "web-docs", "web-shop", "web-status", "web-support"),
    *("data-exports", "data-forecast", "data-ingest", "data-quality", "data-reports"),
    *("train-ranking", "train-vision", "train-speech"),
    *("jobs-cleanup", "jobs-invoices", "jobs-mail", "jobs-sync", "jobs-thumbnails", "jobs-webhooks"),
)


def example() -> Report:
    """Return the report of the whole fleet."""
    chance = random.Random(7)
    made = {name: _distributions(name, chance) for name in _NAMES}
    holders: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, found in made.items():
        for distribution in found:
            holders[distribution].append(name)
    venvs = tuple(_venv(name, made[name], holders, chance) for name in _NAMES)
    stored = {key: sum(_PACKAGES[key[0]][0].values()) * _MIB for key in holders}
    shown = sum(each.size or 0 for each in venvs)
    return Report(
        "/srv/shop",
        "/var/cache/venvflow",
        NOW,
        venvs,
        Sharing(shown, sum(stored.values()) + 14 * _MIB),
        _packages(holders, stored),
        _snapshots(venvs, chance),
        _days(chance),
    )


def _distributions(name: str, chance: random.Random) -> list[tuple[str, str]]:
    found = []
    for package in _KINDS[name.partition("-")[0]]:
        usual, *others = _PACKAGES[package][1]
        found.append((package, chance.choice(others) if others and chance.random() < 0.16 else usual))
    return found


def _venv(
    name: str, found: list[tuple[str, str]], holders: dict[tuple[str, str], list[str]], chance: random.Random
) -> ReportedVenv:
    portions = [Portion("(venv)", "", "bin", 180_000, 164_000)]
    for package, version in found:
        alone = len(holders[package, version]) == 1
        for directory, mib in _PACKAGES[package][0].items():
            size = mib * _MIB + chance.randrange(_MIB // 2)
            portions.append(Portion(package, version, directory, size, size if alone else size // 900))
    state, reason, do = _STATES.get(name, ("up to date", "", ""))
    days = 43 if name == "web-status" else chance.randrange(12)
    return ReportedVenv(
        name,
        f"/srv/shop/{name.replace('-', '/', 1)}/.venv",
        state,
        reason,
        do,
        "3.12.12" if name.startswith("web") else "3.13.9",
        len(found) * 9 + 4,
        sum(each.size for each in portions),
        sum(each.own for each in portions),
        NOW - days * 86_400 - 4000,
        tuple(portions),
    )


_STATES = {
    "api-search": (
        "lock changed",
        "changed since it was made: api/search/requirements.txt",
        "doit brings it",
    ),
    "data-quality": (
        "changed by hand",
        "1 file was edited: pandas/io/common.py",
        "Keep it, or run doit with --force",
    ),
    "jobs-thumbnails": (
        "python changed",
        "changed since it was made: python (3.13.7, now 3.13.9)",
        "doit builds it",
    ),
}


def _packages(
    holders: dict[tuple[str, str], list[str]], stored: dict[tuple[str, str], int]
) -> tuple[PackageCost, ...]:
    found = []
    for package in _PACKAGES:
        uses = {version: names for (name, version), names in holders.items() if name == package}
        total = sum(stored[package, version] * len(names) for version, names in uses.items())
        kept = sum(stored[package, version] for version in uses)
        found.append(PackageCost(package, tuple(sorted(uses)), sum(map(len, uses.values())), total, kept))
    return tuple(sorted(found, key=lambda each: -each.stored))


def _snapshots(venvs: tuple[ReportedVenv, ...], chance: random.Random) -> tuple[ReportedSnapshot, ...]:
    found = []
    for venv in venvs:
        created = NOW - chance.randrange(2, 9) * 86_400
        for number in range(chance.randrange(1, 5)):
            by: Keeper = "current" if number == 0 else chance.choice(("newest", "held", "limits", "nothing"))
            by = "pinned" if venv.name == "web-shop" and number == 1 else by
            used = min(created + chance.randrange(1, 9) * 86_400, NOW - 3600)
            found.append(
                ReportedSnapshot(
                    f"{chance.getrandbits(256):064x}",
                    venv.name,
                    venv.python,
                    created,
                    used,
                    venv.size or 0,
                    (venv.own or 0) // (number + 1),
                    (venv.name,),
                    KeptBy(by, _WHY[by].format(venv.name)),
                )
            )
            created -= chance.randrange(4, 16) * 86_400
    return tuple(found)


_WHY: dict[Keeper, str] = {
    "pinned": "pinned",
    "current": "current for {0}",
    "newest": "among the 2 most recently used of {0}",
    "held": "held by /srv/checkout:{0}",
    "limits": "within the limits, last used 9 d ago",
    "nothing": "given up by {0} (last used 31 d ago)",
}


def _days(chance: random.Random) -> tuple[Day, ...]:
    found = []
    for back in range(29, -1, -1):
        day = datetime.fromtimestamp(NOW, timezone.utc).date() - timedelta(days=back)
        busy = 0.15 if day.weekday() > 4 else 1.0
        misses = round(chance.randrange(1, 7) * busy)
        hits = round(chance.randrange(14, 60) * busy)
        spent = sum(chance.uniform(12, 95) for _ in range(misses))
        spared = sum(chance.uniform(8, 60) for _ in range(hits)) * 0.35
        found.append(Day(day.isoformat(), hits, misses, misses, spent, spared))
    return tuple(found)
