"""Says what a directory of a project is for, by the names on its path.

Only what the project itself works with makes a venv: not its examples, not the data of its tests, not what it
makes other projects of, not what it has from elsewhere.
"""

from __future__ import annotations

import re

from venvflow.init.requirements import words_of

EXAMPLES = "examples"
TEMPLATES = "templates"
TEST_DATA = "data of tests"
VENDORED = "files from elsewhere"

_VENDORED = words_of(
    "_vendor bower_components external externals node_modules site-packages third-party third_party "
    "thirdparty vendor vendored vendors"
)
_TEMPLATES = words_of("boilerplate boilerplates scaffold skeleton skeletons template templates")
_TEST_DATA = words_of(
    "cassettes dummy fake fakes fixture fixtures golden goldens mock mocks snapshot snapshots stub stubs "
    "testcases testdata testproject testprojects"
)
_EXAMPLES = words_of(
    "cookbook cookbooks demo demos example examples playground playgrounds quickstart quickstarts sample "
    "samples showcase snippets starter starters tutorial tutorials workshop workshops"
)
_TESTS = words_of("spec specs test testing tests")
_KINDS_OF_TESTS = _TESTS | words_of(
    "acceptance api benchmark benchmarks ci e2e functional integration integrations load perf performance "
    "py3 python smoke system ui unit"
)
_DATA = words_of("data projects")


def purpose_of(directory: str) -> str:
    """Return what *directory*, relative to the project root, is for: one of the words above, or nothing.

    What lies in a directory of tests is what tests run in. What lies deeper is their data, unless each name
    on the way says a kind of tests.
    """
    below_tests = False
    for part in filter(None, directory.lower().split("/")):
        words = frozenset(re.split(r"[^a-z0-9]+", part)) - {""}
        if part in _VENDORED:
            return VENDORED
        if words & _TEMPLATES or "{{" in part or "{%" in part or part.startswith("cookiecutter"):
            return TEMPLATES
        if words & _TEST_DATA or (words & _TESTS and words & _DATA):
            return TEST_DATA
        if below_tests and not words & _TESTS and words - _KINDS_OF_TESTS:
            return TEST_DATA
        if words & _EXAMPLES:
            return EXAMPLES
        below_tests = below_tests or (bool(words & _TESTS) and words <= _KINDS_OF_TESTS)
    return ""
