"""``report``: the page has the figures of other commands, names are data, and it is written whole."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from dataclasses import replace
from functools import lru_cache
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from example_fleet import NOW, example
from forks import forked

from venvflow.pure.report import (
    MOST_COLUMNS,
    NOT_RECORDED,
    Portion,
    ReportedVenv,
    directory_in,
    keepers,
    matrix,
    stale,
    treemap,
    versions,
)
from venvflow.pure.retention import Dropped, Kept, TrimPlan
from venvflow.pure.units import show_size
from venvflow.report import charts
from venvflow.report.page import as_ascii_script, as_data, policy_for, render
from venvflow.state.history import Event, note
from venvflow.state.index import Index

if TYPE_CHECKING:
    from cli_project import Project

HOSTILE = "</script><script>alert(1)</script>\"'`{{7*7}}<img src=x onerror=alert(2)>&\u202e\x1b[31m"
"""What a package, a venv or a version may be called."""


class Page(HTMLParser):
    """A page as a reader without scripts has it: its tables by their ids, its elements, its figures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data: Any = None
        self._rows: list[list[str]] = []
        self._cell: list[str] | None = None
        self._in_data = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open a table, a row or a cell; a cell is what it shows and, behind it, its value if it has one."""
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag == "div" and (found.get("id") or "").startswith("table-"):
            self._rows = self.tables[(found["id"] or "").removeprefix("table-")] = []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._cell = []
            self._value = found.get("data-value")
        self._in_data = tag == "script" and found.get("type") == "application/json"

    def handle_endtag(self, tag: str) -> None:
        """Close a cell, or the figures."""
        self._in_data &= tag != "script"
        if tag in ("td", "th") and self._cell is not None:
            text = "".join(self._cell).strip()
            self._rows[-1].append(text if self._value is None else self._value)
            self._cell = None

    def handle_data(self, data: str) -> None:
        """Take the text of a cell, or the figures."""
        if self._cell is not None:
            self._cell.append(data)
        elif self._in_data:
            self.data = json.loads(data)

    def rows(self, table: str) -> list[list[str]]:
        """Return the rows of a table below its head."""
        return [row for row in self.tables[table][1:] if row]


@lru_cache
def example_page() -> str:
    """Return the page of the fleet that was thought up."""
    return render(example())


def reported(project: Project, *words: str) -> Page:
    """Return the page that the command writes."""
    answer = project.run("report", "-o", "../report.html", "--force", *words)
    assert answer.code == 0, answer.err
    return Page((project.root.parent / "report.html").read_text("ascii"))


@pytest.fixture
def twins(project: Project) -> Project:
    """Give a project with two venvs of one lock file, and one that was never built."""
    text = project.config.read_text(encoding="utf-8")
    text += "  twin: {path: twin/.venv, locks: [api/requirements.txt]}\n"
    project.config.write_text(text, encoding="utf-8")
    assert project.run("restore", "api").code == 0
    assert project.run("restore", "twin").code == 0
    return project


# --------------------------------------------------------------------------- figures


def test_venvs_are_as_status_has_them(twins: Project) -> None:
    """Each figure, and the map adds up to it."""
    (twins.site / "added.py").write_text("ADDED = True\n", encoding="utf-8")
    page = reported(twins)
    status = {each["name"]: each for each in twins.run("status", "--json").document["venvs"]}
    rows = {row[0]: row for row in page.rows("venvs")}
    assert rows.keys() == status.keys() == {"api", "web", "twin"}
    for name, record in status.items():
        size, own = record["size"], record["own_size"]
        assert rows[name][1] == record["state"]
        assert rows[name][2] == (record["python"] or "-")
        known = [record["packages"], size, own, None if size is None else size - own]
        assert rows[name][3:7] == [str(-1 if each is None else each) for each in known]
        parts = [row for row in page.rows("bytes") if row[0] == name]
        assert sum(int(row[3]) for row in parts) == (size or 0)
        assert sum(int(row[4]) for row in parts) == (own or 0)
    assert 0 < status["api"]["own_size"] < status["api"]["size"]
    assert [row[0] for row in page.rows("stale")] == ["api", "web"]


def test_packages_are_as_stats_and_the_views_have_them(twins: Project) -> None:
    """In the project, and what sharing saves of all."""
    page = reported(twins)
    packages = twins.run("stats", "--packages", "--json").document["packages"]
    assert [row[0] for row in page.rows("packages")] == [each["name"] for each in packages] == ["demo"]
    assert [row[1:5] for row in page.rows("packages")] == [
        [str(len(each["versions"])), str(each["venvs"]), str(each["bytes"]), str(each["stored"])]
        for each in packages
    ]
    index = Index(str(twins.store / "index.db"))
    with index.writing() as db:  # what the store that was copied has of another project
        db.execute("DELETE FROM venvs WHERE path NOT LIKE ?", (f"{twins.root}/%",))
    usage = index.rows("SELECT DISTINCT package, version FROM package_usage")
    ((shown, saved),) = index.rows("SELECT venv_bytes, saved_bytes FROM savings")
    index.close()
    assert [tuple(row[:2]) for row in page.rows("versions")] == usage
    assert page.rows("versions")[0][2:] == ["2", "0", "api, twin"]
    text = (twins.root.parent / "report.html").read_text("ascii")
    assert f'<dd class="value">{show_size(shown)}</dd>' in text
    assert f'<dd class="value">{show_size(saved)}</dd>' in text
    assert saved > 0


def test_snapshots_are_as_list_and_trim_have_them(twins: Project) -> None:
    """With the reasons of the policy."""
    page = reported(twins)
    (listed,) = twins.run("list", "--json").document["snapshots"]
    (kept,) = twins.run("trim", "--dry-run", "--json").document["keep"]
    (row,) = page.rows("snapshots")
    assert row[0] == listed["id"][:12]
    assert row[5:7] == [str(listed["size"]), str(listed["unique_size"])]
    assert row[8] == "; ".join(kept["reasons"])
    assert row[7] == "current"


def test_days_are_as_the_view_has_them(twins: Project) -> None:
    """Those of the project, or of all; a day long ago is not among the last thirty."""
    now = time.time()
    root = str(twins.root)
    index = Index(str(twins.store / "index.db"))
    note(index, [Event(now - 40 * 86_400, root, "api", "restore", "hit", 1.0, spared=9.0)])
    note(index, [Event(now - 86_400, root, "api", "restore", "miss", 0.1)])
    note(index, [Event(now - 86_400, root, "api", "build-venv", "built", 12.5)])
    note(index, [Event(now - 86_400, "/elsewhere", "api", "restore", "hit", 0.1, spared=2.5)])
    view = "SELECT day, sum(hits), sum(misses), sum(builds), total(spent), total(spared) FROM history_days"
    last = "day > date('now', 'localtime', '-30 days')"
    for words, which in ((), f"project = '{root}'"), (("--all",), "1"):
        expected = index.rows(f"{view} WHERE {which} AND {last} GROUP BY day ORDER BY day DESC")
        rows = reported(twins, *words).rows("days")
        assert [row[0] for row in rows] == [each[0] for each in expected]
        for row, figures in zip(rows, expected, strict=True):
            assert [*map(float, row[1:])] == pytest.approx(figures[1:], abs=0.001)
        assert len(rows) == 2
    index.close()
    assert twins.run("report", "-o", "../r.html", "--json").document["days"] == 2


def test_what_is_drawn_is_what_the_tables_have() -> None:
    """The charts of a large fleet have no figure of their own."""
    page, report = Page(example_page()), example()
    drawn = page.data["treemap"]["data"][0]
    inner = set(drawn["parents"])
    leaves = [value for name, value in zip(drawn["ids"], drawn["values"], strict=True) if name not in inner]
    assert leaves == [int(row[3]) for row in page.rows("bytes")]
    assert drawn["values"][0] == sum(leaves) == sum(each.size or 0 for each in report.venvs)
    shares = page.data["shares"]["data"]
    assert [sum(pair) for pair in zip(shares[0]["x"], shares[1]["x"], strict=True)][::-1] == [
        int(row[4]) for row in page.rows("venvs")
    ]
    marks = [each for each in page.data["snapshots"]["data"] if each["mode"] == "markers"]
    assert sum(len(each["x"]) for each in marks) == len(page.rows("snapshots")) == len(report.snapshots)
    hits, misses, builds, spared, spent = (each["y"] for each in page.data["days"]["data"])
    assert sum(hits) == sum(int(row[1]) for row in page.rows("days"))
    assert [sum(misses), sum(builds)] == [sum(int(row[at]) for row in page.rows("days")) for at in (2, 3)]
    assert -sum(spent) == pytest.approx(sum(float(row[4]) for row in page.rows("days")), abs=0.1)
    assert sum(spared) == pytest.approx(sum(float(row[5]) for row in page.rows("days")), abs=0.1)


# --------------------------------------------------------------------------- decisions


def venv(name: str, *portions: Portion, **more: Any) -> ReportedVenv:
    """Return a venv that is made of *portions*."""
    size, own = sum(each.size for each in portions), sum(each.own for each in portions)
    return ReportedVenv(name, f"/{name}", "up to date", size=size, own=own, portions=portions, **more)


def test_small_parts_are_put_together_and_nothing_is_lost() -> None:
    """However many venvs, distributions and directories there are."""
    venvs = [
        venv(
            f"v{n}", *(Portion(f"p{m}", "1", f"d{k}", 1 + m + k, k % 2) for m in range(20) for k in range(9))
        )
        for n in range(100)
    ]
    areas = treemap(venvs)
    for depth in (1, 2, 3):
        below: dict[tuple[str, ...], list[int]] = {}
        for area in areas:
            if len(area.path) == depth:
                below.setdefault(area.path[:-1], []).append(area.size)
        whole = {area.path: area.size for area in areas} | {(): sum(each.size or 0 for each in venvs)}
        assert all(sum(sizes) == whole[path] for path, sizes in below.items())
    assert max(area.folded for area in areas) == 61
    assert len(areas) < 3000


def test_what_is_not_in_the_store_is_a_part_of_its_own() -> None:
    """A venv that was not shared yet, or to which somebody added files."""
    added = replace(venv("a", Portion("p", "1", "p", 70, 10)), size=100, own=40)
    areas = {area.path: (area.size, area.own) for area in treemap([added])}
    assert areas["a", NOT_RECORDED] == (30, 30)
    assert treemap([ReportedVenv("b", "/b", "not built")]) == []


def test_a_version_is_odd_where_more_venvs_have_another_one() -> None:
    """Of two that are as frequent none is."""
    one, two = Portion("p", "1", "p", 1, 0), Portion("p", "2", "p", 1, 0)
    uses = versions([venv("a", one), venv("b", one), venv("c", two)])
    assert [(each.version, each.venvs, each.odd) for each in uses] == [
        ("1", ("a", "b"), False),
        ("2", ("c",), True),
    ]
    assert not any(each.odd for each in versions([venv("a", one), venv("c", two)]))


def test_venvs_that_are_alike_share_a_column() -> None:
    """And what the matrix has no room for is counted."""
    same = Portion("same", "1", "p", 1, 0)
    venvs = [venv(f"v{n:02}", same, Portion("p", str(max(n - 9, 0)), "p", 1, 0)) for n in range(60)]
    found = matrix(versions(venvs), [each.name for each in venvs])
    assert [name for name, _ in found.rows] == ["p"]
    assert len(found.columns) == MOST_COLUMNS
    assert len(found.columns[0]) == 10
    assert found.rows[0][1][0] == ("0", False)
    assert all(odd for _, odd in found.rows[0][1][1:])
    assert found.left_out == (0, 60 - 10 - (MOST_COLUMNS - 1))


def test_a_venv_is_stale_by_its_state_or_by_its_age() -> None:
    """What is not known is not stale."""
    fresh = ReportedVenv("a", "/a", "up to date", used=NOW - 86_400)
    assert stale(fresh, NOW) == ""
    assert stale(replace(fresh, used=NOW - 31 * 86_400), NOW) == "not made or stored for 31 days"
    assert stale(replace(fresh, state="lock changed", reason="x"), NOW) == "lock changed: x"
    assert stale(replace(fresh, state=""), NOW) == ""


def test_the_strongest_reason_says_what_keeps_a_snapshot() -> None:
    """A pin before all others."""
    keep = (
        Kept("a", ("current for x", "pinned by y")),
        Kept("b", ("among the 2 most recently used of x",)),
        Kept("c", ("held by /p:x",)),
        Kept("d", ("within the limits, last used 2 d ago",)),
    )
    found = keepers(TrimPlan(keep, (Dropped("e", "nobody holds it", 0),), {}, 0, ()))
    assert {name: each.by for name, each in found.items()} == {
        "a": "pinned", "b": "newest", "c": "held", "d": "limits", "e": "nothing",
    }  # fmt: skip


def test_a_directory_is_named_from_site_packages_on() -> None:
    """No deeper than two names."""
    assert directory_in("lib/python3.12/site-packages/numpy/core/include/x.h") == "numpy/core"
    assert directory_in("lib/python3.12/site-packages/six.py") == "."
    assert directory_in("bin/python") == "bin"


# --------------------------------------------------------------------------- names are data


def test_a_hostile_name_is_text_wherever_it_stands() -> None:
    """As a venv, package, version, directory, state, path and reason; long names, too."""
    report = example()
    long = "\u4e2d\u6587" * 150
    first = report.venvs[0]
    evil = replace(
        first,
        name=HOSTILE,
        path=HOSTILE,
        reason=HOSTILE,
        state=HOSTILE,
        do=HOSTILE,
        portions=(Portion(HOSTILE, HOSTILE, HOSTILE, 9, 9), Portion(long, long, long, 5, 5)),
    )
    snapshot = report.snapshots[0]._replace(venv=HOSTILE, python=HOSTILE, holders=(HOSTILE,))
    packages = (replace(report.packages[0], name=HOSTILE, versions=(HOSTILE, long)),)
    text = render(
        replace(report, root=f"/{HOSTILE}", venvs=(evil, first), snapshots=(snapshot,), packages=packages)
    )
    page = Page(text)
    assert [tag for tag, _ in page.tags].count("script") == 3
    assert not {"img", "link", "iframe", "object", "embed"} & {tag for tag, _ in page.tags}
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert "49" not in page.rows("venvs")[1][0]
    assert "\x1b" not in text
    assert "\\u202e" in page.rows("versions")[-1][0] + page.rows("versions")[0][0]
    assert any(long == cell for row in page.rows("bytes") for cell in row)


def test_plotly_gets_no_markup_and_no_credentials() -> None:
    """It would take tags in a label for markup."""
    assert charts.label("<b>&x</b>") == "&lt;b&gt;&amp;x&lt;/b&gt;"
    assert len(charts.label("x" * 300)) < 50
    long = [f"{'x' * 100}{number}{'y' * 100}" for number in range(3)]
    assert len({*charts.labels(long).values()}) == 3
    evil = replace(example().venvs[0], do="see https://me:secret@host/")
    assert "secret" not in render(replace(example(), venvs=(evil,)))
    assert "<" not in as_data({"a": ["</script><!--"]})


def test_the_page_loads_nothing_and_runs_its_own_scripts_alone() -> None:
    """By a policy that has their hashes, and nothing that could fetch; all of it is ASCII."""
    text = example_page()
    page = Page(text)
    (policy,) = [a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert policy == policy_for(scripts)
    assert policy is not None
    assert "unsafe-eval" not in policy
    assert "http" not in policy
    assert text.isascii()
    assert not [attrs for _, attrs in page.tags if {"src", "srcset", "action", "background"} & attrs.keys()]
    assert all((attrs.get("href") or "#").startswith("#") for _, attrs in page.tags)
    assert as_ascii_script("a\u00b5\U0001f600") == "a\\u00b5\\ud83d\\ude00"


# --------------------------------------------------------------------------- what is written


def test_an_empty_store_and_no_history_are_said(project: Project) -> None:
    """In words, where a chart or a table would be; no store is made."""
    for file in (project.store, project.root.parent / "elsewhere"):
        if file.exists():
            file.rename(f"{file}-away")
    page = reported(project)
    assert not project.store.exists()
    assert [row[1] for row in page.rows("venvs")] == ["not built", "not built"]
    assert page.data == {}
    text = (project.root.parent / "report.html").read_text("ascii")
    assert "Nothing was written down yet" in text
    assert "There are no snapshots yet" in text


def test_a_file_that_is_there_is_replaced_only_by_force(twins: Project) -> None:
    """Never a directory, a link or a device; whole or not at all."""
    target = twins.root.parent / "page.html"
    target.write_text("mine", encoding="utf-8")
    answer = twins.run("report", "-o", "../page.html")
    assert (answer.code, target.read_text(encoding="utf-8")) == (6, "mine")
    assert "--force" in answer.err
    assert twins.run("report", "-o", "../page.html", "--force").code == 0
    assert target.read_text("ascii").startswith("<!DOCTYPE html>")
    assert not [each for each in target.parent.iterdir() if each.name.startswith(".vf-")]
    (twins.root / "link").symlink_to(target)
    os.mkfifo(twins.root / "fifo")
    for name in ("link", "fifo", "api"):
        answer = twins.run("report", "-o", name, "--force")
        assert (answer.code, "not a file" in answer.err) == (6, True)
    answer = twins.run("report", "-o", "no/such/directory.html")
    assert (answer.code, "directory is not there" in answer.err) == (3, True)


def test_standard_output_is_the_page_and_nothing_else(twins: Project) -> None:
    """To a pipe; not together with JSON."""
    answer = twins.run("report", "-o", "-")
    assert answer.out.rstrip().endswith("</html>")
    assert answer.err == ""
    answer = twins.run("report", "-o", "-", "--json")
    assert (answer.code, answer.out) == (2, "")


def test_nobody_who_listens_is_no_error(twins: Project) -> None:
    """As with ``| head``: what is left of the page is dropped."""
    reader, writer = os.pipe()
    os.close(reader)
    said = forked("report -o -", stdout=writer)
    os.close(writer)
    assert (said.code, said.err) == (0, "")


def test_a_thousand_venvs_are_a_page_that_opens() -> None:
    """Charts show the largest; all venvs are in their table."""
    report = example()
    venvs = tuple(
        replace(each, name=f"{each.name}-{number}") for number in range(40) for each in report.venvs[:25]
    )
    text = render(replace(report, venvs=venvs))
    page = Page(text)
    assert len(page.rows("venvs")) == 1000
    assert len(page.data["treemap"]["data"][0]["ids"]) < 3000
    assert len(page.data["shares"]["data"][0]["x"]) == charts.MOST_BARS
    assert len(text) < 8_000_000


def test_a_store_that_is_only_read_is_enough(twins: Project) -> None:
    """Nothing in it or in the project is changed."""
    twins.run("status")
    before = twins.hashes()
    reported(twins)
    reported(twins, "--all")
    assert twins.hashes() == before


def test_without_the_extra_it_says_what_to_install(twins: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """And writes nothing."""
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    answer = twins.run("report", "-o", "../page.html")
    assert answer.code == 3
    assert "venvflow[report]" in answer.err
    assert not (twins.root.parent / "page.html").exists()


def test_all_venvs_have_names_that_tell_them_apart(twins: Project, tmp_path: Path) -> None:
    """Those of other projects by the project's name, or by their paths."""
    page = reported(twins, "--all")
    assert {row[0] for row in page.rows("venvs")} == {"api", "twin", "web"}
    os.chdir(tmp_path)
    answer = twins.run("report", "-o", "all.html")
    assert answer.code == 0
