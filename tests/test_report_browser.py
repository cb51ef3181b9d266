"""The report in a real browser: it opens in peace, its charts and tables work, and everybody can read it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from browser import Browser, browser, missing
from example_fleet import example
from test_report import HOSTILE

from venvflow.pure.report import Portion
from venvflow.report.gathering import Report
from venvflow.report.page import render

pytestmark = [
    pytest.mark.skipif(bool(missing()), reason=missing() or "there is one"),
    pytest.mark.slow,
]

WIDE, PHONE = (1280, 900), (390, 844)


def hostile_fleet() -> Report:
    """Return the example with a large venv that is called like an attack, and one with a very long name."""
    report = example()
    size = 2 << 30
    evil = replace(
        report.venvs[0],
        name=HOSTILE,
        reason=HOSTILE,
        state="damaged",
        size=size,
        own=size,
        portions=(
            Portion(HOSTILE, "1", HOSTILE, size // 2, size // 2),
            Portion("y" * 300, "1", ".", size // 2, size // 2),
        ),
    )
    long = replace(report.venvs[1], name="\u4e2d\u6587" * 150)
    venvs = (evil, long, *report.venvs[-14:-4])
    return replace(report, root=f"/srv/{HOSTILE}", venvs=venvs, snapshots=report.snapshots[:20])


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the file of a report of many venvs, one of them hostile."""
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(render(hostile_fleet()), encoding="ascii")
    return file


@pytest.fixture(scope="module")
def opened(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Give a browser that has opened the page."""
    with browser(tmp_path_factory.mktemp("profile")) as found:
        found.open(page)
        yield found


@pytest.fixture
def seen(opened: Browser) -> Browser:
    """Give the page on a wide screen in the light scheme."""
    opened.look(*WIDE, "light")
    return opened


def test_it_opens_without_an_error_or_a_request(seen: Browser, page: Path) -> None:
    """Nothing was said in the console, and nothing but the page itself was asked for."""
    assert seen.asked_for() == [page.as_uri()]
    assert seen.said() == []


def test_a_hostile_name_does_nothing(seen: Browser) -> None:
    """It stands there as text: in the title, in tables and in charts."""
    assert seen.run("return document.scripts.length") == 3
    assert seen.run("return document.querySelectorAll('img, [onerror], svg script').length") == 0
    assert "<img src=x onerror=alert(2)>" in seen.run("return document.querySelector('h1').textContent")
    labels = seen.run("return document.querySelector('#chart-shares').textContent")
    assert "</script><script>" in labels


def test_the_map_has_the_venvs_and_opens_one(seen: Browser) -> None:
    """By the keyboard, too: its names are in a list."""
    text = (
        "return [...document.querySelectorAll('#chart-treemap .slicetext')].map((each) => each.textContent)"
    )
    labels = "\n".join(seen.run(text))
    for name in ("train-ranking", "train-vision", "data-reports", "torch 2.9.1"):
        assert name in labels
    choose = (
        "const list = document.getElementById('open-part');"
        "list.value = [...list.options].find((each) => each.text === arguments[0]).value;"
        "list.dispatchEvent(new Event('change'));"
    )
    seen.run(choose, "train-vision")
    seen.settle()
    labels = "\n".join(seen.run(text))
    assert "torch/lib" in labels
    assert "data-reports" not in labels
    seen.run(
        "[...document.querySelectorAll('#chart-treemap .slice')]"
        ".find((each) => each.textContent.startsWith('torch 2.9.1'))"
        ".dispatchEvent(new MouseEvent('click', {bubbles: true}))"
    )
    opened = "document.querySelector('#chart-treemap').textContent.includes('torch/_inductor')"
    seen.until(opened)
    for name in ("train-vision", "torch 2.9.1"):  # what is around the open part, and inside
        seen.run(choose, name)
        assert seen.run("return document.getElementById('open-part').selectedOptions[0].text") == name
    seen.until(opened)
    seen.run(choose, "all venvs")
    assert seen.run("return document.querySelectorAll('#chart-treemap pattern').length") > 0


WIDEST_CHART = (
    "return Math.max(...[...document.querySelectorAll('.main-svg')]"
    ".map((each) => each.getBoundingClientRect().width))"
)


def column(seen: Browser, table: str, number: int) -> list[str]:
    """Return what one column of a table shows, from the top."""
    script = "return [...document.querySelectorAll(`#table-${arguments[0]} tbody tr`)].map((row) => {"
    return list(
        seen.run(
            f"{script} const c = row.cells[arguments[1]]; return c.dataset.value ?? c.textContent; }})",
            table,
            number,
        )
    )


def test_tables_can_be_sorted(seen: Browser) -> None:
    """By numbers as numbers, by words as words, by a click or the keyboard; it says in which order."""
    head = "#table-venvs thead th:nth-child(5)"
    button = seen.find(f"{head} button")
    for order in ("descending", "ascending"):
        seen.run("arguments[0].click()", button)
        assert seen.run(f"return document.querySelector('{head}').getAttribute('aria-sort')") == order
        sizes = [int(each) for each in column(seen, "venvs", 4)]
        assert sizes == sorted(sizes, reverse=order == "descending")
    first = seen.find("#table-venvs thead th:nth-child(1) button")
    first.send_keys("\n")
    names = [each for each in column(seen, "venvs", 0) if each[0].isascii() and each[0].isalpha()]
    assert names == sorted(names)
    assert seen.run("return document.querySelectorAll('#table-venvs [aria-sort]').length") == 1


def test_tables_can_be_searched_and_show_all(seen: Browser) -> None:
    """What fits stays, also of rows that were not shown; how many that are is said."""
    shown = (
        "return [...document.querySelectorAll('#table-bytes tbody tr')].filter((row) => row.offsetHeight > 0)"
    )
    assert len(seen.run(shown)) == 12
    search = seen.find("#table-bytes input")
    search.send_keys("SCIPY.LIBS")
    texts = seen.run(f"{shown}.map((row) => row.textContent)")
    assert texts
    assert all("scipy.libs" in each for each in texts)
    assert seen.find("#table-bytes .found").text.startswith(f"{len(texts)} of")
    search.clear()
    seen.run("arguments[0].dispatchEvent(new Event('input'))", search)
    seen.run("document.querySelector('#table-bytes .more-rows').click()")
    assert len(seen.run(shown)) > 100
    seen.run("document.querySelector('#table-bytes .more-rows').click()")
    assert len(seen.run(shown)) == 12


@pytest.mark.parametrize(("size", "scheme"), [(WIDE, "light"), (PHONE, "dark")])
def test_it_fits_and_everybody_can_read_it(
    seen: Browser, size: tuple[int, int], scheme: str, axe: str
) -> None:
    """Nothing is wider than the window, and axe finds nothing: contrast, names, tables, landmarks."""
    seen.look(*size, "dark" if scheme == "dark" else "light")
    wide = "return Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)"
    assert seen.run(wide) <= size[0]
    assert seen.run(WIDEST_CHART) <= size[0]
    edges = "[...document.querySelectorAll('.sortable td')].map((each) => each.getBoundingClientRect().right)"
    assert seen.run(f"return Math.max(...{edges})") <= size[0]
    assert (
        seen.run("return [...document.querySelectorAll('.chart')].map((e) => e.offsetHeight)").count(0) == 0
    )
    assert (
        min(seen.run("return [...document.querySelectorAll('.main-svg')].map((e) => e.clientHeight)")) > 200
    )
    ground = seen.run("return getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
    tick = seen.run("return document.querySelector('#chart-shares .ytick text').style.fill")
    assert tick == ("rgb(26, 32, 41)" if scheme == "light" else "rgb(233, 237, 242)")
    seen.run(axe)
    found = seen.run_to_end(
        "axe.run(document, {resultTypes: ['violations']}).then((found) => arguments[0]("
        "found.violations.map((each) => `${each.id}: ${each.nodes.slice(0, 3).map((n) => n.target)}`)))"
    )
    assert found == []


@pytest.fixture(scope="module")
def axe() -> str:
    """Give the source of axe-core, which looks for what keeps people from reading a page."""
    import axe_core_python

    return Path(axe_core_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")


def test_headings_are_in_order(seen: Browser) -> None:
    """One of the first level, and those of the sections below it."""
    levels = seen.run("return [...document.querySelectorAll('h1, h2, h3')].map((each) => each.tagName)")
    assert levels == ["H1", *["H2"] * 6]


def test_paper_gets_all_rows_and_light_charts(seen: Browser) -> None:
    """From a dark screen, too; no chart is wider than the page."""
    seen.look(700, 990, "dark", "print")
    seen.settle()
    hidden = (
        "return [...document.querySelectorAll('tbody tr')].filter((row) => row.offsetHeight === 0).length"
    )
    assert seen.run(hidden) == 0
    assert seen.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert (
        seen.run("return document.querySelector('#chart-shares .ytick text').style.fill") == "rgb(26, 32, 41)"
    )
    assert seen.run("return document.documentElement.scrollWidth") <= 700
    assert seen.run(WIDEST_CHART) <= 680
    assert seen.run("return getComputedStyle(document.querySelector('nav')).display") == "none"
    assert seen.printed().startswith(b"%PDF")


def test_without_scripts_there_are_tables(opened: Browser, page: Path) -> None:
    """With all rows, and no button that would do nothing."""
    opened.forbid_scripts(forbidden=True)
    try:
        opened.open(page)
        hidden = (
            "return [...document.querySelectorAll('tbody tr')].filter((e) => e.offsetHeight === 0).length"
        )
        assert opened.run(hidden) == 0
        assert opened.run("return document.querySelectorAll('thead button').length") == 0
    finally:
        opened.forbid_scripts(forbidden=False)
