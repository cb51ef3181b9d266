"""What lock files refer to beyond their bytes, and what they pin."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from venvflow.pure import lockfiles
from venvflow.pure.lockfiles import References, listed, packages, references
from venvflow.pure.names import kind_of

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HASH = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("requirements.txt", "requirements"),
        ("services/api/requirements-dev.txt", "requirements"),
        ("requirements.in", "requirements"),
        ("pylock.toml", "pylock"),
        ("a/pylock.dev.toml", "pylock"),
        ("xpylock.toml", "other"),
        ("uv.lock", "uv"),
        ("x/uv.lock", "uv"),
        ("poetry.lock", "poetry"),
        ("pdm.lock", "pdm"),
        ("pdm.dev.lock", "pdm"),
        ("Pipfile.lock", "pipenv"),
        ("pyproject.toml", "other"),
        ("", "other"),
    ],
)
def test_the_kind_is_told_by_the_name(name: str, kind: str) -> None:
    """Directories do not matter, base names do."""
    assert kind_of(name) == kind


@pytest.mark.parametrize(
    ("name", "text", "groups"),
    [
        ("pdm.lock", '[metadata]\ngroups = ["default", "docs"]\n', {"default", "docs"}),
        ("pdm.lock", "[metadata]\ngroups = 3\n", None),
        ("pdm.lock", "[metadata", None),
        ("Pipfile.lock", '{"_meta": {}, "default": {}, "develop": {}, "docs": {}}', {"develop", "docs"}),
        ("Pipfile.lock", "[", None),
        ("uv.lock", "", None),
    ],
)
def test_the_groups_of_a_lock_file_are_known_where_its_tool_passes_over_others(
    name: str, text: str, groups: set[str] | None
) -> None:
    """By themselves, uv and poetry refuse a group that is not there."""
    assert lockfiles.groups_in(name, text.encode()) == groups


# --------------------------------------------------------------------------- requirements files


def requirements(text: str) -> References:
    """Return what a requirements file with *text* refers to."""
    return references("requirements.txt", text.encode())


def test_further_requirements_files_are_followed_in_every_spelling() -> None:
    """Short and long, glued, with an equals sign, quoted, continued, commented; URLs are not files."""
    found = requirements(
        "-r base.txt\n-rglued.txt\n--requirement=equals.txt # why\n--requirement long.txt\n"
        "-c ../constraints.txt\n--constraint 'with space.txt'\n-r \\\n  continued.txt\n"
        "# -r commented.txt\n-r file:///abs/a%20b.txt\n-r base.txt\n-r https://host/remote.txt\n"
        "--index-url https://x\n--no-binary :all:\n-i https://y\n"
    )
    assert found.includes == (
        "base.txt", "glued.txt", "equals.txt", "long.txt", "../constraints.txt", "with space.txt",
        "continued.txt", "/abs/a b.txt",
    )  # fmt: skip
    assert found.local == ()
    assert found.unpinned == ("requirements are read from https://host/remote.txt, which may change",)


def test_local_projects_are_found_in_every_spelling() -> None:
    """Editable or not, with extras and markers, by path or by URL."""
    found = requirements(
        "-e .\n-e ./lib[dev,test]\n--editable=../other ; python_version > '3'\n"
        "./plain[extra] ; os_name == 'posix'\n"
        "named @ file:///srv/named ; python_version < '4'\nwith-extra[a] @ file:./relative\n/abs/project\n"
        "-e bare\nsub/dir\nfile:///srv/space%20d#egg=space\n-e 'quoted dir'\n"
    )
    assert found.local == (
        ".", "./lib", "../other", "./plain", "/srv/named", "./relative", "/abs/project", "bare", "sub/dir",
        "/srv/space d", "quoted dir",
    )  # fmt: skip
    assert found.includes == ()
    assert found.unpinned == ()


def test_what_is_pinned_gives_no_warning() -> None:
    """Versions, commits and hashes hold the content."""
    found = requirements(
        f"a==1.0\nb === 2 ; python_version < '3.12'\nc[x]==1 \\\n    --hash={HASH} \\\n    --hash={HASH}\n"
        f"d @ git+https://host/d@{COMMIT}#egg=d\n-e git+ssh://git@host/e.git@{COMMIT}\n"
        f"f @ https://host/f.whl#sha256={'b' * 64}\ng @ https://host/g.whl --hash={HASH}\n"
        f"./wheels/h-1-py3-none-any.whl --hash={HASH}\n"
    )
    assert found == References()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a", "a may be any version"),
        ("a>=1,<2", "a may be any version that fits >=1,<2"),
        ("a==1.*", "a may be any version that fits ==1.*"),
        ("a==1,!=2", "a may be any version that fits ==1,!=2"),
        ("a[x]~=1.0 ; os_name=='nt'", "a may be any version that fits ~=1.0"),
        ("a @ git+https://host/a@main", "a is whatever git+https://host/a@main holds: no commit is named"),
        ("-e git+https://host/a#egg=a", "a is whatever git+https://host/a#egg=a holds: no commit is named"),
        ("git+ssh://git@host/a", "a package is whatever git+ssh://***@host/a holds: no commit is named"),
        (f"hg+https://host/a@{COMMIT[:12]}", "no commit is named"),
        ("a @ https://host/a.whl", "a is whatever https://host/a.whl serves: there is no hash"),
        ("https://host/a.zip", "a package is whatever https://host/a.zip serves: there is no hash"),
        ("./wheels/a.whl", "a package is whatever the file ./wheels/a.whl holds: there is no hash"),
        ("a.tar.gz", "a package is whatever the file a.tar.gz holds: there is no hash"),
    ],
)
def test_what_is_not_pinned_is_one_sentence(line: str, words: str) -> None:
    """It names the package and the reason."""
    (sentence,) = requirements(line + "  # comment\n").unpinned
    assert words in sentence


def test_byte_order_marks_and_line_ends_are_understood() -> None:
    """A file saved on another system is the same file."""
    for data in (b"\xef\xbb\xbfa==1\r\n-r b.txt\r\n", "a==1\n-r b.txt".encode("utf-16")):
        assert packages("r.txt", data) == {"a": "1"}
        assert references("r.txt", data).includes == ("b.txt",)


def test_a_comment_between_continued_lines_and_a_backslash_at_the_end_are_no_trouble() -> None:
    """As pip reads them: a comment line ends the continuation."""
    assert packages("r.txt", b"a==1 \\\n  # via b\nb==2\nc==3 \\") == {"a": "1", "b": "2", "c": "3"}
    assert packages("r.txt", b"# no continuation \\\na==1") == {"a": "1"}


def test_versions_are_read_from_requirements() -> None:
    """Names are normalised; alternatives for several platforms are all named."""
    data = (
        f"Foo_Bar.baz==1.0 --hash={HASH}\nnumpy==1.26 ; python_version<'3.9'\n"
        "numpy==2.0 ; python_version>='3.9'\n"
        f"free>=1\nd @ git+https://me:canary@host/d@{COMMIT}\n"
    )
    assert packages("requirements.txt", data.encode()) == {
        "d": f"@ git+https://***@host/d@{COMMIT}",
        "foo-bar-baz": "1.0",
        "numpy": "1.26, 2.0",
    }


# --------------------------------------------------------------------------- TOML and JSON


def test_uv_locks_are_read() -> None:
    """Workspace members are local, git sources hold a commit, files have hashes."""
    data = f"""
version = 1
[[package]]
name = "root"
version = "0.1"
source = {{ editable = "." }}
[[package]]
name = "member"
source = {{ directory = "packages/member" }}
[[package]]
name = "workspace"
source = {{ virtual = "tools" }}
[[package]]
name = "Num_Py"
version = "2.0"
source = {{ registry = "https://index/simple" }}
sdist = {{ url = "https://x/n.tar.gz", hash = "{HASH}" }}
wheels = [{{ url = "https://x/n.whl", hash = "{HASH}" }}]
[[package]]
name = "bare"
version = "1"
source = {{ registry = "https://index/simple" }}
wheels = [{{ url = "https://x/b.whl" }}]
[[package]]
name = "fromgit"
version = "3"
source = {{ git = "https://host/g?rev=main#{COMMIT}" }}
[[package]]
name = "direct"
version = "4"
source = {{ url = "https://host/d.whl" }}
wheels = [{{ url = "https://host/d.whl", hash = "{HASH}" }}]
[[package]]
name = "wheel"
version = "5"
source = {{ path = "wheels/w.whl" }}
wheels = [{{ filename = "w.whl" }}]
"""
    found = references("uv.lock", data.encode())
    assert found.local == (".", "packages/member", "tools")
    assert found.unpinned == (
        "bare 1 may be any file of that version: there is no hash",
        "wheel is whatever the file wheels/w.whl holds: there is no hash",
    )
    assert packages("uv.lock", data.encode()) == {
        "bare": "1",
        "direct": "4 @ https://host/d.whl",
        "fromgit": f"3 @ https://host/g?rev=***#{COMMIT}",
        "num-py": "2.0",
        "wheel": "5 @ wheels/w.whl",
    }


def test_poetry_locks_of_both_generations_are_read() -> None:
    """Files stand with the package, or in one table at the end."""
    data = f"""
[[package]]
name = "a"
version = "1"
files = [{{file = "a.whl", hash = "{HASH}"}}]
[[package]]
name = "local"
version = "0"
files = []
[package.source]
type = "directory"
url = "../local"
[[package]]
name = "g"
version = "2"
[package.source]
type = "git"
url = "https://host/g"
reference = "main"
resolved_reference = "{COMMIT}"
[[package]]
name = "u"
version = "3"
[package.source]
type = "url"
url = "https://host/u.whl"
[[package]]
name = "old"
version = "4"
[metadata.files]
u = [{{file = "u.whl", hash = "{HASH}"}}]
old = [{{file = "old.whl", hash = ""}}]
"""
    found = references("poetry.lock", data.encode())
    assert found.local == ("../local",)
    assert found.unpinned == ("old 4 may be any file of that version: there is no hash",)
    assert packages("poetry.lock", data.encode())["g"] == "2 @ https://host/g"
    without = data.replace("u = [", "v = [")
    assert any("u is whatever" in text for text in references("poetry.lock", without.encode()).unpinned)


def test_pdm_locks_are_read() -> None:
    """Paths, repositories and URLs are keys of the package itself."""
    data = f"""
[[package]]
name = "a"
version = "1"
files = [{{file = "a.whl", hash = "{HASH}"}}]
[[package]]
name = "here"
version = "0"
path = "./here"
editable = true
[[package]]
name = "g"
version = "2"
git = "https://host/g"
revision = "main"
[[package]]
name = "u"
version = "3"
url = "https://host/u.whl"
"""
    found = references("pdm.lock", data.encode())
    assert found.local == ("./here",)
    assert [text.split()[0] for text in found.unpinned] == ["g", "u"]
    assert packages("pdm.lock", data.encode())["a"] == "1"


def test_pylock_files_are_read() -> None:
    """The standard format: directories, commits, archives, wheels."""
    data = f"""
lock-version = "1.0"
[[packages]]
name = "a"
version = "1"
wheels = [{{url = "https://x/a.whl", hashes = {{sha256 = "{"a" * 64}"}}}}]
[[packages]]
name = "here"
directory = {{path = "pkg", editable = true}}
[[packages]]
name = "g"
vcs = {{type = "git", url = "https://host/g", commit-id = "{COMMIT}"}}
[[packages]]
name = "bad"
vcs = {{type = "git", url = "https://host/bad", requested-revision = "main"}}
[[packages]]
name = "u"
archive = {{url = "https://host/u.zip", hashes = {{sha256 = "{"a" * 64}"}}}}
[[packages]]
name = "none"
version = "2"
sdist = {{url = "https://x/n.tar.gz"}}
"""
    found = references("pylock.api.toml", data.encode())
    assert found.local == ("pkg",)
    assert [text.split()[0] for text in found.unpinned] == ["bad", "none"]
    assert packages("pylock.api.toml", data.encode())["a"] == "1"


def test_pipfile_locks_are_read() -> None:
    """Every group of packages counts, the part about the file itself does not."""
    document = {
        "_meta": {"sources": [{"url": "https://x"}], "requires": {"version": "3"}},
        "default": {
            "a": {"version": "==1.0", "hashes": [HASH]},
            "here": {"path": "./here", "editable": True},
            "g": {"git": "https://host/g", "ref": COMMIT},
            "branch": {"git": "https://host/b", "ref": "main"},
            "star": {"version": "*"},
            "f": {"file": "https://host/f.zip"},
        },
        "develop": {"d": {"version": "==2", "hashes": [HASH]}},
    }
    data = json.dumps(document).encode()
    found = references("Pipfile.lock", data)
    assert found.local == ("./here",)
    assert [text.split()[0] for text in found.unpinned] == ["branch", "star", "f"]
    assert packages("Pipfile.lock", data) == {
        "a": "1.0",
        "branch": "@ https://host/b",
        "d": "2",
        "f": "@ https://host/f.zip",
        "g": "@ https://host/g",
    }


def test_formats_that_are_not_known_say_nothing() -> None:
    """Any file may be listed as a lock; its bytes are what counts."""
    assert references("environment.yml", b"-r a.txt\nx>=1") == References()
    assert packages("environment.yml", b"x==1") == {}


# --------------------------------------------------------------------------- nonsense and secrets

NAMES = st.sampled_from(
    ["r.txt", "pylock.toml", "uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "other"]
)
PIECES = st.sampled_from(
    [
        "-r ",
        "-e ",
        " @ ",
        "git+",
        "https://",
        "file:",
        "\\\n",
        "#",
        "[",
        "]",
        ";",
        "==",
        "a",
        "/",
        ".",
        "'",
        "\n",
    ]
)
KEYS = ["package", "packages", "name", "version", "source", "files", "metadata", "git", "url", "path", "vcs"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(
    NAMES, st.one_of(st.binary(max_size=60), st.lists(PIECES, max_size=12).map(lambda p: "".join(p).encode()))
)
def test_no_bytes_raise(name: str, data: bytes) -> None:
    """Whatever the bytes are, there is an answer of the right shape."""
    assert isinstance(references(name, data), References)
    assert isinstance(packages(name, data), dict)


@pytest.mark.parametrize("data", [b"[1]", b"1", b"null", b'"text"', b'{"default": [1], "x": {"a": 1}}'])
def test_json_of_another_shape_says_nothing(data: bytes) -> None:
    """A Pipfile.lock is an object of objects, or not read."""
    assert references("Pipfile.lock", data) == References()


def test_no_path_contains_a_nul() -> None:
    """What is returned can be opened without a ValueError."""
    assert requirements("-r a\0b.txt\n-e ./c\0d\n-r good.txt") == References(("good.txt",))


@given(VALUES)
def test_documents_of_any_shape_are_read(value: object) -> None:
    """Valid JSON or TOML that is not what the format says gives what it can."""
    for read in lockfiles._READERS.values():
        document = (
            value if isinstance(value, dict) else {"package": value, "packages": value, "default": value}
        )
        for package in read(document):
            assert all(isinstance(field, str) for field in package)


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"a":' * 100_000, b"a = " + b"[" * 100_000])
@pytest.mark.parametrize("name", ["Pipfile.lock", "uv.lock", "requirements.txt"])
def test_deep_nesting_is_no_trouble(name: str, data: bytes) -> None:
    """A hostile file costs neither a traceback nor time."""
    references(name, data)


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "text", ["://" + "@" * 50_000, "?" + "token" * 10_000, "a" + " " * 50_000 + "-", "a[" * 20_000]
)
def test_long_lines_take_no_time(text: str) -> None:
    """No expression here takes more than a moment for any line."""
    requirements(text)


def test_no_secret_of_a_lock_file_comes_out() -> None:
    """Neither the warnings nor the versions show credentials."""
    url = "https://me:canary@host/a.zip?token=canary"
    texts = {
        "r.txt": f"-r {url}\na @ {url}\n-e git+{url}\n{url}\n-i {url}\n",
        "uv.lock": f'[[package]]\nname = "a"\nversion = "1"\nsource = {{ url = "{url}" }}\n',
        "Pipfile.lock": json.dumps({"default": {"a": {"git": url}, "b": {"file": url}}}),
    }
    for name, text in texts.items():
        found = references(name, text.encode())
        assert found.unpinned
        assert "canary" not in repr(found) + repr(packages(name, text.encode()))


def test_importing_it_imports_nothing_heavy() -> None:
    """The parsers are imported when they are used."""
    code = (
        "import contextlib, sys, json, re, shlex, typing, urllib.parse, __future__\n"
        "class Loads(typing.NamedTuple): what: 'needs'\n"
        "before = set(sys.modules)\n"
        "import venvflow.pure.lockfiles; print(*(set(sys.modules) - before))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(module.startswith("venvflow") for module in out.split())


# --------------------------------------------------------------------------- lists that are kept


def test_every_package_is_listed_with_what_is_asked_of_it() -> None:
    """Also one that is not pinned, or comes from a directory; neither credentials nor queries are in it."""
    data = (
        f"A_b==1.0 --hash={HASH}\nfree\nrange>=1,<2 ; os_name=='posix'\n-e ./here#egg=here\n"
        "two==1 ; python_version<'3.9'\ntwo==2 ; python_version>='3.9'\n"
        "url @ https://me:canary@host/u.whl?token=canary&x=canary\n-r other.txt\n--index-url https://canary@x\n"
    )
    found = listed("requirements.txt", data.encode())
    assert found == {
        "a-b": "1.0",
        "free": "any",
        "here": "@ ./here",
        "range": ">=1,<2",
        "two": "1, 2",
        "url": "@ https://***@host/u.whl",
    }
    assert "canary" not in repr(found)


@pytest.mark.parametrize(
    ("name", "data", "packages"),
    [
        ("uv.lock", '[[package]]\nname = "a"\nversion = "1"\n', {"a": "1"}),
        ("uv.lock", '[[package]]\nname = "r"\nsource = { editable = "." }\n', {"r": "@ ."}),
        ("pylock.toml", '[[packages]]\nname = "a"\nversion = "1"\n', {"a": "1"}),
        ("poetry.lock", '[[package]]\nname = "a"\nversion = "1"\n', {"a": "1"}),
        ("pdm.lock", '[[package]]\nname = "a"\nversion = "1"\n', {"a": "1"}),
        ("Pipfile.lock", '{"_meta": {}, "default": {"a": {"version": "==1"}}}', {"a": "1"}),
        ("requirements.txt", "", {}),
        ("uv.lock", "version = 1", {}),
    ],
)
def test_all_kinds_of_lock_files_are_listed(name: str, data: str, packages: dict[str, str]) -> None:
    """An empty list is a list."""
    assert listed(name, data.encode()) == packages


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("environment.yml", b"dependencies: [a=1]"),
        ("uv.lock", b"[[package"),
        ("uv.lock", b""),
        ("Pipfile.lock", b"[1, 2]"),
        ("poetry.lock", b"\xff\xfe\x00"),
    ],
)
def test_what_cannot_be_read_has_no_list(name: str, data: bytes) -> None:
    """That is something else than a list of nothing."""
    assert listed(name, data) is None


@given(
    st.sampled_from(["r.txt", "uv.lock", "poetry.lock", "pdm.lock", "pylock.toml", "Pipfile.lock"]),
    st.binary(),
)
def test_no_bytes_make_listing_fail(name: str, data: bytes) -> None:
    """What is listed can be kept as text."""
    found = listed(name, data)
    assert found is None or all(json.dumps([key, value]) for key, value in found.items())


def test_a_sentence_about_a_package_has_an_end() -> None:
    """Whatever somebody called a package: its name fills no terminal and no note."""
    (sentence,) = references("requirements.txt", b"n" * 10_000 + b">=1\n").unpinned
    assert len(sentence) <= 1001
    assert sentence.endswith("n may be any version that fits >=1")
