"""The schema of the index: its migrations, and its views, which users may query.

``sqlite-utils index.db views`` lists the views; Datasette shows them. Tables are made once and changed
by further migrations only; views are made anew whenever the schema changes.
"""

from __future__ import annotations

import sqlite3

from sqlite_utils import Database, Migrations

migrations = Migrations("venvflow")


@migrations()
def first(db: Database) -> None:
    """Create the tables."""
    for statement in _TABLES:
        db.execute(statement)


@migrations()
def history(db: Database) -> None:
    """Create the table of what ran; ``packages`` is JSON: a list of name, version before, version after."""
    db.execute(
        """
        CREATE TABLE history (
            id INTEGER PRIMARY KEY,
            at REAL NOT NULL,
            project ANY NOT NULL,
            venv TEXT NOT NULL,
            step TEXT NOT NULL,
            outcome TEXT NOT NULL,
            seconds REAL NOT NULL,
            bytes INTEGER,
            spared REAL,
            packages TEXT,
            host TEXT NOT NULL,
            snapshot TEXT
        ) STRICT
        """
    )
    db.execute("CREATE INDEX history_by_time ON history(at)")


# Paths are of type ANY: text, or bytes where a name is not UTF-8, which SQLite's text cannot hold.
_TABLES = (
    """
    CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID
    """,
    "INSERT INTO counters VALUES ('use', 0)",
    """
    CREATE TABLE objects (
        id INTEGER PRIMARY KEY,
        digest TEXT NOT NULL,
        executable INTEGER NOT NULL,
        size INTEGER NOT NULL,
        adopted_mtime INTEGER,
        adopted_mode INTEGER,
        UNIQUE (digest, executable)
    ) STRICT
    """,
    """
    CREATE TABLE trees (
        id INTEGER PRIMARY KEY,
        digest TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        version TEXT NOT NULL,
        files INTEGER NOT NULL,
        size INTEGER NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE files (
        tree INTEGER NOT NULL REFERENCES trees(id) ON DELETE CASCADE,
        path ANY NOT NULL,
        object INTEGER NOT NULL REFERENCES objects(id),
        PRIMARY KEY (tree, path)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX files_by_object ON files(object)",
    """
    CREATE TABLE bytecode (
        interpreter TEXT NOT NULL,
        source INTEGER NOT NULL REFERENCES objects(id) ON DELETE CASCADE,
        path ANY NOT NULL,
        object INTEGER REFERENCES objects(id) ON DELETE CASCADE,
        PRIMARY KEY (interpreter, source, path)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX bytecode_by_source ON bytecode(source)",
    "CREATE INDEX bytecode_by_object ON bytecode(object)",
    """
    CREATE TABLE snapshots (
        id TEXT PRIMARY KEY,
        key TEXT NOT NULL,
        parts TEXT NOT NULL,
        venv TEXT NOT NULL,
        place ANY,
        python TEXT NOT NULL,
        host TEXT NOT NULL,
        command TEXT NOT NULL,
        created REAL NOT NULL,
        used_at REAL NOT NULL,
        used_seq INTEGER NOT NULL,
        files INTEGER NOT NULL,
        size INTEGER NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE snapshot_trees (
        snapshot TEXT NOT NULL REFERENCES snapshots(id) ON DELETE CASCADE,
        tree INTEGER NOT NULL REFERENCES trees(id) ON DELETE CASCADE,
        PRIMARY KEY (snapshot, tree)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX snapshot_trees_by_tree ON snapshot_trees(tree)",
    """
    CREATE TABLE venvs (
        id INTEGER PRIMARY KEY,
        path ANY NOT NULL UNIQUE,
        snapshot TEXT,
        seen_at REAL
    ) STRICT
    """,
    """
    CREATE TABLE venv_trees (
        venv INTEGER NOT NULL REFERENCES venvs(id) ON DELETE CASCADE,
        tree INTEGER NOT NULL REFERENCES trees(id) ON DELETE CASCADE,
        PRIMARY KEY (venv, tree)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX venv_trees_by_tree ON venv_trees(tree)",
    """
    CREATE TABLE stamps (venv ANY PRIMARY KEY NOT NULL, stamps TEXT NOT NULL) STRICT
    """,
)

VIEWS = {
    # Which venvs contain this version of that package? One row per distribution and venv.
    "package_usage": """
        SELECT trees.name AS package, trees.version, snapshots.venv, snapshots.python,
               snapshots.id AS snapshot, trees.files, trees.size AS bytes
        FROM snapshot_trees
        JOIN trees ON trees.id = snapshot_trees.tree
        JOIN snapshots ON snapshots.id = snapshot_trees.snapshot
        WHERE trees.version <> ''
    """,
    # One row per snapshot: its bytes as they appear, and those that no other snapshot has. Counted by tree,
    # for snapshots share most of theirs: thousands of them are little more than one.
    "venv_sizes": """
        WITH held AS (
            SELECT tree, CASE WHEN count(*) = 1 THEN min(snapshot) END AS holder
            FROM snapshot_trees GROUP BY tree
        ), lone AS (
            SELECT files.object, min(held.holder) AS holder
            FROM files JOIN held ON held.tree = files.tree GROUP BY files.object
            HAVING count(held.holder) = count(*) AND min(held.holder) = max(held.holder)
        ), own AS (
            SELECT lone.holder, sum(objects.size) AS bytes
            FROM lone JOIN objects ON objects.id = lone.object GROUP BY lone.holder
        )
        SELECT snapshots.venv, snapshots.python, snapshots.id AS snapshot, snapshots.files,
               snapshots.size AS bytes, coalesce(own.bytes, 0) AS own_bytes
        FROM snapshots LEFT JOIN own ON own.holder = snapshots.id
    """,
    # What is in the venvs of this machine: of those of a project by their snapshots, of the others directly.
    "venv_content": """
        SELECT venv_trees.venv, venv_trees.tree FROM venv_trees
        UNION
        SELECT venvs.id, snapshot_trees.tree
        FROM venvs JOIN snapshot_trees ON snapshot_trees.snapshot = venvs.snapshot
    """,
    # Which packages cost most? One row per distribution: its bytes in all venvs, and those that are stored.
    "packages": """
        WITH used AS (
            SELECT trees.id, trees.name, trees.version, trees.size, venv_content.venv
            FROM venv_content JOIN trees ON trees.id = venv_content.tree WHERE trees.version <> ''
        ), stored AS (
            SELECT DISTINCT used.name, files.object FROM used JOIN files ON files.tree = used.id
        )
        SELECT used.name AS package, count(DISTINCT used.version) AS versions,
               count(DISTINCT used.venv) AS venvs, sum(used.size) AS bytes,
               (SELECT coalesce(sum(objects.size), 0) FROM stored JOIN objects ON objects.id = stored.object
                WHERE stored.name = used.name) AS stored_bytes
        FROM used GROUP BY used.name
    """,
    # One row: what all venvs show, what the store holds, and what the venvs save by sharing.
    "savings": """
        WITH shown AS (
            SELECT count(DISTINCT venv_content.venv) AS venvs, coalesce(sum(trees.size), 0) AS bytes
            FROM venv_content JOIN trees ON trees.id = venv_content.tree
        ), behind AS (
            SELECT coalesce(sum(size), 0) AS bytes FROM objects WHERE id IN (
                SELECT files.object FROM venv_content JOIN files ON files.tree = venv_content.tree
            )
        )
        SELECT shown.venvs, shown.bytes AS venv_bytes,
               (SELECT count(*) FROM snapshots) AS snapshots,
               (SELECT coalesce(sum(size), 0) FROM snapshots) AS snapshot_bytes,
               (SELECT count(*) FROM objects) AS objects,
               (SELECT coalesce(sum(size), 0) FROM objects) AS stored_bytes,
               shown.bytes - behind.bytes AS saved_bytes
        FROM shown, behind
    """,
    # What did builds cost and restores spare? One row per day (local time), project and venv; seconds.
    "history_days": """
        SELECT date(at, 'unixepoch', 'localtime') AS day, project, venv,
               sum(outcome = 'hit') AS hits, sum(outcome = 'miss') AS misses,
               sum(outcome = 'built') AS builds,
               sum(iif(step = 'build-venv', seconds, 0.0)) AS spent, total(spared) AS spared
        FROM history WHERE step IN ('restore', 'build-venv') GROUP BY day, project, venv
    """,
    # When did which package change in which venv? One row per package and step.
    "package_changes": """
        SELECT history.at, history.project, history.venv, history.step,
               json_extract(changed.value, '$[0]') AS package, json_extract(changed.value, '$[1]') AS before,
               json_extract(changed.value, '$[2]') AS after
        FROM history, json_each(history.packages) AS changed
    """,
}


def apply(connection: sqlite3.Connection) -> None:
    """Bring the schema up to date inside the caller's transaction."""
    db = Database(connection, execute_plugins=False)
    migrations.apply(db)
    for name, sql in VIEWS.items():
        db.create_view(name, sql, replace=True)
