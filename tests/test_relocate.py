"""Local paths in files: found however they are spelled, and written so that they work and run nothing."""

from __future__ import annotations

import ast
import csv
import io
import itertools
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pythons import BASE, bare_venv, interpreters
from tiers import first_quick

from venvflow import postinstall
from venvflow.model import Entry, Slot
from venvflow.pure import relocate
from venvflow.pure.relocate import (
    Places,
    digest_of,
    embeds,
    fill,
    fill_link,
    find,
    find_in_record,
    find_link,
    is_record,
    mentions,
    names_as_no_text,
    names_project,
    names_venv,
    record_fields,
    record_paths,
    without_rows,
)

SITE = "lib/python3.12/site-packages"
RECORD = f"{SITE}/demo-1.0.dist-info/RECORD"
STAGED = "/srv/.vf-0123abcd/new/my-env"
HERE = Places(STAGED, "/srv/checkout", "/usr/bin/python3.12")
PROJECT = Places("/app/.venv", "/app", "/usr/bin/python3.12")

NASTY = [
    "/plain/venv",
    "/with space/v env",
    "/quo'te/it's",
    '/dou"ble/"v"',
    "/dollar$HOME/$(touch PWNED)",
    "/tick`touch PWNED`/`touch PWNED`",
    "/back\\slash/x\\'; touch PWNED; '",
    '/fish\\\'" ; touch PWNED ; "/v',
    "/bang!!/!$",
    "/percent%20/%s%d%41",
    "/snowman☃/é",
    "/bytes\udcff\udc80/v\udcfe",
    "/line\nbreak\ntouch PWNED\n/a\ntouch PWNED\nb",
    "/semi; touch PWNED; #/; touch PWNED #",
    "/brace{x}/{__import__('os').system('touch PWNED')}",
    "/triple'''quote/'''",
    '/triple"""quote/"""',
    "/tab\there/\r",
    "/tilde/~root",
    "/long/" + "/".join(["d" * 40] * 5),
]

paths = st.lists(
    st.text(
        st.sampled_from("ab é☃ '\"$`\\!%{}()#;&|<>*?[]~=+,.@-\n\r\t\udcff\udc80"), min_size=1, max_size=12
    )
    .map(lambda name: name.replace("/", "_"))
    .filter(lambda name: name not in (".", "..")),
    min_size=1,
    max_size=3,
)
targets = paths.map(lambda names: "/target/" + "/".join(names))
origins = paths.map(lambda names: "/origin/" + "/".join(names))


def moved(path: str, data: bytes, old: Places, new: Places, *, fresh: bool = True) -> bytes:
    """Return the file for another place."""
    template = find(path, data, old, fresh=fresh)
    assert template is not None
    return fill(template.data, template.slots, new)


def places(venv: str, project: str = "/some/project") -> Places:
    """Return places for a venv."""
    return Places(venv, project, "/usr/bin/python3.12")


# --------------------------------------------------------------------------- activation scripts


def double_quoted(venv: bytes, name: bytes) -> bytes:
    """Return an activation script as venv wrote it until 3.13.0: in double quotes, nothing escaped."""
    return (
        b'# sourced "by a shell", don\'t run it\n'
        b'if [ "${OSTYPE:-}" = "cygwin" ] ; then\n    export VIRTUAL_ENV=$(cygpath "%s")\nelse\n'
        b'    export VIRTUAL_ENV="%s"\nfi\nPATH="$VIRTUAL_ENV/bin:$PATH"\nVIRTUAL_ENV_PROMPT="(%s) "\n'
        b'PS1="(%s) ${PS1:-}"\nexport VIRTUAL_ENV_PROMPT PS1\n' % (venv, venv, name, name)
    )


def shell_quoted(venv: bytes, name: bytes) -> bytes:
    """Return an activation script as venv writes it since: quoted only where it must be."""
    word, prompt = (os.fsencode(shlex.quote(os.fsdecode(text))) for text in (venv, name))
    return (
        b'if [ "${OSTYPE:-}" = "msys" ] ; then\n    VIRTUAL_ENV=$(cygpath %s)\n    export VIRTUAL_ENV\nelse\n'
        b"    export VIRTUAL_ENV=%s\nfi\nVIRTUAL_ENV_PROMPT=%s\nexport VIRTUAL_ENV_PROMPT\n"
        b'PS1="("%s") ${PS1:-}"\nexport PS1\n' % (word, word, prompt, prompt)
    )


def always_quoted(venv: bytes, _: bytes) -> bytes:
    """Return an activation script as uv and virtualenv write it: in single quotes, always."""
    word = b"'" + venv.replace(b"'", b"'\"'\"'") + b"'"
    return (
        b"if [ ! -d %s ]; then\n    : \"not there\" %s 'really'\nfi\nVIRTUAL_ENV=%s\nexport VIRTUAL_ENV\n"
        b'VIRTUAL_ENV_PROMPT=$(basename "$VIRTUAL_ENV")\nexport VIRTUAL_ENV_PROMPT\nPS1=""\n'
        % (word, word, word)
    )


SHAPES = [double_quoted, shell_quoted, always_quoted]


def sourced(shell: str, scripts: list[bytes], directory: Path) -> list[tuple[bytes, bytes]]:
    """Source each script with the shell; return VIRTUAL_ENV and VIRTUAL_ENV_PROMPT of each."""
    lines = []
    for number, script in enumerate(scripts):
        (directory / f"s{number}").write_bytes(script)
        lines.append(f'( . ./s{number}; printf \'%s\\0%s\\0\' "$VIRTUAL_ENV" "$VIRTUAL_ENV_PROMPT" )\n')
    (directory / "all").write_text("".join(lines))
    environ = {"PATH": os.environ["PATH"], "HOME": "/nowhere"}
    done = subprocess.run([shell, "./all"], cwd=directory, env=environ, capture_output=True, check=False)
    assert done.stderr == b""
    answers = done.stdout.split(b"\0")
    return list(zip(answers[::2], answers[1::2], strict=False))


@pytest.mark.parametrize("shell", [name for name in ("sh", "bash", "dash", "zsh") if shutil.which(name)])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_moved_activation_script_sets_exactly_the_new_path_and_runs_nothing(
    shape: object, shell: str, tmp_path: Path
) -> None:
    """Every nasty path comes out of a real shell as it went in, and no part of it is run."""
    assert callable(shape)
    scripts = [moved("bin/activate", shape(STAGED.encode(), b"my-env"), HERE, places(path)) for path in NASTY]
    answers = sourced(shell, scripts, tmp_path)
    assert [venv for venv, _ in answers] == [os.fsencode(path) for path in NASTY]
    names = [os.fsencode(os.path.basename(path)) for path in NASTY]
    for name, (_, prompt) in zip(names, answers, strict=True):
        assert prompt.strip(b"() ") == name.strip(b"() ") or b"\n" in name
    assert not (tmp_path / "PWNED").exists()


@given(old=origins, new=targets, shape=st.sampled_from(SHAPES))
def test_an_activation_script_from_any_path_names_only_the_new_one(old: str, new: str, shape: object) -> None:
    """Whatever the old path was, it is gone, and what was written is a fixed point."""
    assert callable(shape)
    name = os.path.basename(old)
    if shape is double_quoted and set(name + old) & set('"$`\\'):
        return  # such a script never worked: nothing was escaped in it
    data = shape(os.fsencode(old), os.fsencode(name))
    result = moved("bin/activate", data, places(old), places(new))
    assert b"/origin/" not in result
    again = find("bin/activate", result, places(new))
    assert again is not None
    assert fill(again.data, again.slots, places(new)) == result
    assert again == find("bin/activate", fill(again.data, again.slots, places(new)), places(new))


@pytest.mark.parametrize("shape", SHAPES[1:])
def test_a_script_in_canonical_form_is_given_back_at_the_same_place(shape: object) -> None:
    """Filling in where it was found changes no byte."""
    assert callable(shape)
    for path in ("/opt/my env/it's", "/opt/w s"):
        data = shape(os.fsencode(path), os.fsencode(os.path.basename(path)))
        template = find("bin/activate", data, places(path))
        assert template is not None
        assert fill(template.data, template.slots, places(path)) == data


@pytest.mark.parametrize("shell", [name for name in ("sh", "bash", "dash") if shutil.which(name)])
def test_a_path_inside_a_longer_string_is_quoted_there(shell: str, tmp_path: Path) -> None:
    """Double quotes, single quotes, nested commands and comments all come out right."""
    text = b"""# here: STAGED/bin
VIRTUAL_ENV="$(printf '%s' "STAGED")"
VIRTUAL_ENV_PROMPT="<STAGED/bin:"'STAGED'":>"
""".replace(b"STAGED", STAGED.encode())
    scripts = [moved("bin/activate", text, HERE, places(path)) for path in NASTY]
    expected = [(raw, b"<%s/bin:%s:>" % (raw, raw)) for raw in (os.fsencode(path) for path in NASTY)]
    assert sourced(shell, scripts, tmp_path) == expected
    assert not (tmp_path / "PWNED").exists()


def test_a_path_between_backticks_runs_nothing(tmp_path: Path) -> None:
    """No quotes help there, so a path with odd characters is percent-encoded: wrong, but harmless."""
    text = b"VIRTUAL_ENV=`printf '%%s' \"%s\"`\nVIRTUAL_ENV_PROMPT=\n" % STAGED.encode()
    scripts = [moved("bin/activate", text, HERE, places(path)) for path in NASTY]
    expected = [postinstall.percent(path) for path in NASTY]
    assert [venv for venv, _ in sourced("sh", scripts, tmp_path)] == expected
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize(
    ("shell", "name", "setter"),
    [("fish", "activate.fish", b"set -gx VIRTUAL_ENV "), ("tcsh", "activate.csh", b"setenv VIRTUAL_ENV ")],
)
@pytest.mark.parametrize("quote", [b'"', b"'", b""])
def test_csh_and_fish_read_the_new_path_too(
    shell: str, name: str, setter: bytes, quote: bytes, tmp_path: Path
) -> None:
    """The one spelling of a word is right in these shells; csh stops at a line break and runs nothing."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    data = setter + quote + STAGED.encode() + quote + b"\n"
    for path in NASTY:
        (tmp_path / name).write_bytes(
            moved(f"bin/{name}", data, HERE, places(path)) + b"printenv VIRTUAL_ENV\n"
        )
        done = subprocess.run(
            [shell, "-c", f"source ./{name}"], cwd=tmp_path, capture_output=True, check=False
        )
        if shell == "tcsh" and "\n" in path:
            assert b"Unmatched" in done.stderr + done.stdout
        else:
            assert done.stdout == os.fsencode(path) + b"\n"
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize(("opening", "closing"), [(b"'", b"'"), (b"r#'", b"'#"), (b'"', b'"')])
def test_nushell_gets_a_double_quoted_string(opening: bytes, closing: bytes, tmp_path: Path) -> None:
    """However the path was quoted, it is a string with escapes afterwards, and nushell agrees."""
    data = b"export-env {\n    const virtual_env = %s%s%s\n    load-env { V: $virtual_env }\n}\n"
    data %= (opening, STAGED.encode(), closing)
    for path in NASTY:
        result = moved("bin/activate.nu", data, HERE, places(path))
        literal = result.split(b"= ", 1)[1].split(b"\n", 1)[0].decode("ascii", "replace")
        assert literal[0] == literal[-1] == '"'
        assert "'" not in literal.replace("\\'", "")
        nu, printable = shutil.which("nu"), path.isprintable() and "{" not in path
        if nu is not None:
            (tmp_path / "a.nu").write_bytes(result)
            command = [nu, "-n", "-c", "source a.nu; print $env.V"]
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
            assert done.stdout == os.fsencode(path) + b"\n" if printable else True
    assert not (tmp_path / "PWNED").exists()


def test_the_prompt_follows_the_name_of_the_directory() -> None:
    """Prompts of all versions are found in strings, in parentheses, and as words of their own."""
    lines = {
        b'PS1="(my-env) ${PS1:-}"': b'PS1="("other") ${PS1:-}"',
        b'VIRTUAL_ENV_PROMPT="my-env"': b"VIRTUAL_ENV_PROMPT=other",
        b"VIRTUAL_ENV_PROMPT=my-env": b"VIRTUAL_ENV_PROMPT=other",
        b'    set env_name = "my-env"': b"    set env_name = other",
        b'printf "%s(%s)%s " (set_color 4B8BBE) my-env (set_color normal)': (
            b'printf "%s(%s)%s " (set_color 4B8BBE) other (set_color normal)'
        ),
        b"cd my-env": b"cd my-env",
        b'PS1="(my-env-2) "': b'PS1="(my-env-2) "',
    }
    data = b"\n".join([*lines, b"VIRTUAL_ENV=" + STAGED.encode()]) + b"\n"
    result = moved("bin/activate.fish", data, HERE, places("/x/other"))
    assert result.splitlines()[:-1] == list(lines.values())


@pytest.mark.slow
def test_real_activation_scripts_of_every_interpreter_work_elsewhere(tmp_path: Path) -> None:
    """What ``python -m venv`` of each version writes is found whole and works at a nasty place."""
    new = '/new/pl ace/it\'s "$(touch PWNED)"'
    for minor, python in interpreters().items():
        old = str(tmp_path / f"stage {minor}")
        subprocess.run([python, "-m", "venv", "--without-pip", "--symlinks", old], check=True)
        for name in sorted(os.listdir(f"{old}/bin")):
            path = Path(old, "bin", name)
            template = (
                None if path.is_symlink() else find(f"bin/{name}", path.read_bytes(), places(old), fresh=True)
            )
            assert (template is not None) == (name in ("activate", "activate.csh", "activate.fish"))
        settings_ = Path(old, "pyvenv.cfg").read_bytes()
        where = Places(old, "/some/project", python)
        assert os.fsencode(old) not in moved("pyvenv.cfg", settings_, where, places(new))
        result = moved("bin/activate", Path(old, "bin/activate").read_bytes(), where, places(new))
        assert os.fsencode(old) not in result
        for shell in ("sh", "bash"):
            assert sourced(shell, [result], tmp_path)[0][0] == os.fsencode(new)
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize("stage", ["plain", "st'a ge$"])
def test_real_activation_scripts_of_uv_work_elsewhere(stage: str, tmp_path: Path) -> None:
    """What ``uv venv`` writes for each shell names the new place only."""
    uv = shutil.which("uv", path=os.path.dirname(sys.executable)) or shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")
    old, new = str(tmp_path / stage / "env"), "/new/pl ace/it's"
    subprocess.run([uv, "venv", "--quiet", "--offline", "--python", BASE, old], check=True)
    found = {}
    for name in sorted(os.listdir(f"{old}/bin")):
        data = Path(old, "bin", name).read_bytes() if not Path(old, "bin", name).is_symlink() else b""
        if find(f"bin/{name}", data, places(old), fresh=True):
            found[name] = moved(f"bin/{name}", data, places(old), places(new))
            assert os.fsencode(old) not in found[name]
    assert {"activate", "activate.csh", "activate.fish", "activate.nu", "activate.bat"} <= set(found)
    assert b"setenv VIRTUAL_ENV '/new/pl ace/it'\"'\"'s'\n" in found["activate.csh"]
    assert b'= "/new/pl ace/it\\\'s"\n' in found["activate.nu"]
    for shell in ("sh", "bash"):
        assert sourced(shell, [found["activate"]], tmp_path)[0] == (os.fsencode(new), b"it's")


# --------------------------------------------------------------------------- console scripts


BODY = b"# -*- coding: utf-8 -*-\nimport sys, os\nsys.stdout.buffer.write(os.fsencode(sys.prefix) + b'|')\n"
BODY += b"print(sys.argv[1:])\n"


def heads(venv: bytes) -> dict[str, bytes]:
    """Return the starts of scripts as installers write them."""
    single = venv.replace(b"'", b"'\"'\"'")
    return {
        "plain": b"#!%s/bin/python\n" % venv,
        "options": b"#!%s/bin/python3 -I\n" % venv,
        "blank": b"#! \t%s/bin/python\n" % venv,
        "env": b'#!/usr/bin/env -S "%s/bin/python"   -I\n' % venv,
        "bare env": b"#!/usr/bin/env -S %s/bin/python3 -I -B\n" % venv,
        "env alone": b"#! /bin/env %s/bin/python\r\n" % venv,
        "long option of env": b"#!/usr/bin/env --split-string=%s/bin/python3 -I\n" % venv,
        "several options": b"#!%s/bin/python3 -I -B\n" % venv,
        "variable": b"#!/usr/bin/env -S A=1 B_2=/x:y \t%s/bin/python3 -I -B\n" % venv,
        "nothing else": b"#!/usr/bin/env -iS A=1 %s/bin/python3\n" % venv,
        "carriage return": b"#!%s/bin/python3 -I\r\n" % venv,
        "pip": b"#!/bin/sh\n'''exec' \"%s/bin/python\" \"$0\" \"$@\"\n' '''\n" % venv,
        "uv": b"#!/bin/sh\n'''exec' '%s/bin/python' \"$0\" \"$@\"\n' '''\n" % single,
        "bare": b"#!/bin/sh\n'''exec' %s/bin/python \"$0\" \"$@\"\n' '''\n" % venv,
    }


@pytest.mark.parametrize("origin", [STAGED, "/sta ge/my env"])
@pytest.mark.parametrize("kind", heads(b""))
def test_every_kind_of_script_head_is_one_slot(kind: str, origin: str) -> None:
    """The whole head is replaced, so nothing of the old way of quoting remains."""
    if kind == "bare" and " " in origin:
        return
    template = find("bin/tool", heads(origin.encode())[kind] + BODY, places(origin))
    assert template is not None
    assert template.data == BODY
    arguments = {
        "env": "bin/python   -I",
        "bare env": "bin/python3 -I -B",
        "several options": "bin/python3 -I -B",
        "variable": "A=1 B_2=/x:y bin/python3 -I -B",
        "nothing else": "-i A=1 bin/python3",
    }
    one = "option" in kind or kind == "carriage return"
    argument = arguments.get(kind, "bin/python3 -I" if one else "bin/python")
    assert template.slots == (Slot(0, "venv", "shebang", argument),)


@pytest.mark.parametrize("path", first_quick(NASTY))
def test_scripts_run_in_a_venv_at_any_path(path: str, tmp_path: Path) -> None:
    """The kernel, the shell and Python all read the new head; the path runs no command."""
    venv = bare_venv(f"{tmp_path}{path}")
    for kind, head in heads(STAGED.encode()).items():
        script = f"{venv}/bin/tool-{kind}"
        with open(script, "wb") as file:
            file.write(moved("bin/tool", head + BODY, HERE, places(venv)))
        os.chmod(script, 0o700)
        done = subprocess.run([script, "a b"], cwd=tmp_path, capture_output=True, check=False)
        assert (done.stdout, done.stderr) == (os.fsencode(venv) + b"|['a b']\n", b""), kind
        compile(Path(script).read_bytes(), script, "exec")  # Python takes it as it is, without a warning
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize(
    "path", first_quick([each for each in NASTY if each.isprintable() and len(each) < 100])
)
def test_scripts_of_another_program_run_at_any_path(path: str, tmp_path: Path) -> None:
    """A shell for one, as node in one of nodeenv; with options that env splits, and variables.

    But where the first line is too long for the kernel: no such script runs there, whoever writes it.
    """
    venv = f"{tmp_path}{path}"
    os.makedirs(f"{venv}/bin")
    os.symlink(os.path.realpath("/bin/sh"), f"{venv}/bin/node")
    heads = [b"#!%s/bin/node\n", b"#!%s/bin/node -u\n", b"#!/usr/bin/env -S %s/bin/node -u -C\n"]
    if "!" not in path and "\\" not in path:  # which env cannot have outside of quotes
        heads += [b"#!/usr/bin/env -S A=1 %s/bin/node -u -C\n", b"#!/usr/bin/env -iS '%s/bin/node' -u\n"]
    for number, head in enumerate(heads):
        script = f"{venv}/bin/tool-{number}"
        with open(script, "wb") as file:
            file.write(moved("bin/tool", head % STAGED.encode() + b'echo "$0|$1"\n', HERE, places(venv)))
        os.chmod(script, 0o700)
        done = subprocess.run([script, "a b"], cwd=tmp_path, capture_output=True, check=False)
        assert (done.stdout, done.stderr) == (os.fsencode(script) + b"|a b\n", b""), head
    assert not (tmp_path / "PWNED").exists()


def test_a_head_for_another_program_is_one_line() -> None:
    """A line break in a path would begin what the program runs."""
    head = postinstall.shebang("/a\nb c", "bin/node --x")
    assert head == b"#!/usr/bin/env -S '/a b c/bin/node' --x\n"


def test_a_path_in_the_query_of_a_url_is_found() -> None:
    """With its slashes escaped, in either case; a longer name is another path. Not in a package."""
    text = b"url = postgres:///db?host=%2Fapp%2F.venv%2Frun&x=%2fapp%2F.venv\nno = %2Fapp%2F.venvs\n"
    template = find("etc/db.ini", text, PROJECT, written_here=True)
    assert mentions("etc/db.ini", text, PROJECT)
    assert not mentions(f"{SITE}/pkg/db.ini", text, PROJECT)
    assert template is not None
    filled = fill(template.data, template.slots, places("/new one/v"))
    assert filled.startswith(b"url = postgres:///db?host=%2Fnew%20one%2Fv%2Frun&x=%2Fnew%20one%2Fv\n")
    assert [slot.kind for slot in template.slots] == ["venv", "venv", "project"]


@given(
    new=targets,
    argument=st.sampled_from(
        [
            "bin/python",
            "bin/python3.12 -E -s",
            "bin/pypy3",
            "bin/node --a -b",
            "-i A=/b bin/python3 -I",
            "A= bin/node",
        ]
    ),
)
def test_a_head_that_we_wrote_is_found_again(new: str, argument: str) -> None:
    """What is written for any path is taken apart to the same slot, at that path and for good."""
    if "node" in argument and not new.isprintable():
        return  # it cannot be run there
    head = postinstall.shebang(new, argument)
    template = find("bin/tool", head + b"pass\n", places(new))
    assert template is not None
    assert template.slots == (Slot(0, "venv", "shebang", argument),)
    assert template.data == b"pass\n"
    assert head.isascii() or head.decode("utf-8")  # Python must be able to read the whole file
    assert head.count(b"\n") in (1, 3)


def test_the_longest_first_line_has_127_bytes() -> None:
    """One byte more, and the line goes through a shell."""
    venv = "/" + "v" * (127 - len("#!/" + "/bin/python" + "\n"))
    assert postinstall.shebang(venv, "bin/python").startswith(b"#!/v")
    assert postinstall.shebang(venv + "v", "bin/python").startswith(b"#!/bin/sh\n'''exec' /vv")


@pytest.mark.parametrize(
    "head",
    [
        b"#!/usr/bin/python3\n",
        b"#!/usr/bin/env python3\n",
        b"#!/srv/.vf-0123abcd/new/my-env2/bin/python\n",
        b"#!/bin/sh\n'''exec' \"$(dirname -- \"$(realpath -- \"$0\")\")\"/'python' \"$0\" \"$@\"\n' '''\n",
        b"#!/bin/sh\n'''exec' 'open \"$0\" \"$@\"\n' '''\n",
        b"#!/bin/sh\nexec true\n",
        b"#!",
        b"",
    ],
)
def test_heads_that_name_another_interpreter_stay(head: bytes) -> None:
    """Scripts for other interpreters, and relocatable ones, are files like any other."""
    assert find("bin/tool", head + b"x = 1\n", HERE) is None


def test_a_script_in_another_language_keeps_its_head() -> None:
    """A shell script of the venv is not run by Python, and a path in its text is made a word."""
    data = b'#!/bin/bash\nprefix="%s"\necho "in $prefix, %s/lib."\n' % ((STAGED.encode(),) * 2)
    expected = b"#!/bin/bash\nprefix='/a b'\necho \"in $prefix, \"'/a b'\"/lib.\"\n"
    assert moved("bin/x-config", data, HERE, places("/a b")) == expected


# --------------------------------------------------------------------------- data files


@given(old=origins, new=targets)
def test_python_literals_are_escaped(old: str, new: str) -> None:
    """An editable finder says the new project wherever it said the old one, and is still Python."""
    data = f"MAPPING: dict = {{'pkg': {old + '/pkg'!r}}}\nOTHER = [{old!r}]\n".encode(
        "utf-8", "surrogateescape"
    )
    path = f"{SITE}/__editable___pkg_1_0_finder.py"
    result = moved(path, data, places("/v", old), places("/w", new), fresh=False)
    tree = ast.parse(result)
    values = [node.value for node in tree.body if isinstance(node, (ast.Assign, ast.AnnAssign))]
    assert [ast.literal_eval(value) for value in values if value] == [{"pkg": f"{new}/pkg"}, [new]]


@given(old=origins, new=targets, ascii_only=st.booleans())
def test_json_strings_are_escaped(old: str, new: str, ascii_only: bool) -> None:
    """A kernel's argv is a JSON list before and after."""
    text = json.dumps({"argv": [f"{old}/bin/python", "-m", "k"], "env": {"V": old}}, ensure_ascii=ascii_only)
    data = text.encode("utf-8", "surrogateescape")
    result = moved("share/jupyter/kernels/k/kernel.json", data, places(old), places(new))
    assert json.loads(result) == {"argv": [f"{new}/bin/python", "-m", "k"], "env": {"V": new}}


@given(old=origins, new=targets, safe=st.sampled_from(["/", "/'$@!()=+,;&", "/%"]))
def test_urls_are_decoded_and_encoded(old: str, new: str, safe: str) -> None:
    """direct_url.json is found however much of it was percent-encoded, in either case of the digits."""
    encoded = "".join(
        chr(byte)
        if (byte < 128 and chr(byte).isalnum()) or chr(byte) in safe.replace("%", "") + "-._"
        else f"%{byte:02x}"
        for byte in os.fsencode(old)
    )
    data = json.dumps({"url": f"file://{encoded}", "dir_info": {"editable": True}}).encode()
    path = f"{SITE}/pkg-1.0.dist-info/direct_url.json"
    result = moved(path, data, places("/v", old), places("/w", new), fresh=False)
    url = json.loads(result)["url"]
    assert url.isascii()
    assert unquote_to_bytes(url.removeprefix("file://")) == os.fsencode(new)


@pytest.mark.parametrize("new", NASTY)
def test_a_pth_file_never_gains_a_line(new: str) -> None:
    """Lines of a .pth are directories or code: no path can add one, or end the string that it stands in."""
    data = b"/app/src\nimport sys; sys.path.insert(0, '/app/lib')\n"
    result = moved(f"{SITE}/__editable__.pkg.pth", data, PROJECT, places("/v", new), fresh=False)
    first, second, rest = result.split(b"\n")
    assert first == os.fsencode(new).replace(b"\n", b" ").replace(b"\r", b" ") + b"/src"
    assert rest == b""
    statement = ast.parse(second).body[1]
    assert isinstance(statement, ast.Expr)
    assert isinstance(statement.value, ast.Call)
    assert ast.literal_eval(statement.value.args[1]) == f"{new}/lib"


def test_settings_of_the_venv_name_the_new_interpreter() -> None:
    """Directory, path, prefix and command of the base interpreter are filled in, other settings stay."""
    data = b"""home = /opt/py/bin
implementation = CPython
version_info = 3.12.1.final.0
include-system-site-packages = false
base-prefix = /opt/py
base-exec-prefix = /opt/py
base-executable = /opt/py/bin/python3.12
executable = /opt/py/bin/python3.12
command = /opt/py/bin/python3 -m virtualenv /srv/my env
prompt = mine
"""
    old = Places("/srv/my env", "/srv", "/opt/py/bin/python3.12")
    new = Places("/x/\nhome = /evil", "/x", "/usr/bin/python3.12")
    result = moved("pyvenv.cfg", data, old, new, fresh=False).decode()
    lines = dict(line.split(" = ", 1) for line in result.splitlines())
    assert lines["home"] == "/usr/bin"
    assert lines["base-prefix"] == lines["base-exec-prefix"] == "/usr/bin/.."
    assert lines["base-executable"] == lines["executable"] == "/usr/bin/python3.12"
    assert lines["command"] == "/usr/bin/python3.12 -m virtualenv /x/ home = /evil"
    assert lines["prompt"] == "mine"
    assert len(result.splitlines()) == len(data.splitlines())
    again = find("pyvenv.cfg", moved("pyvenv.cfg", data, old, old), old)
    assert again == find("pyvenv.cfg", data, old)


def test_a_prefix_that_is_not_the_interpreters_stays() -> None:
    """A base-prefix that says something else is not ours to change."""
    template = find("pyvenv.cfg", b"home = /usr/bin\nbase-prefix = /elsewhere\n", HERE)
    assert template is not None
    assert template.slots == (Slot(7, "home", "line"),)


# --------------------------------------------------------------------------- what is not a local path


@pytest.mark.parametrize(
    "text",
    ["/application", "/app2", "https://x/app", "http://h:80/app", "x/app", "/srv/app", "/app-old/x", "//app",
     "/app.bak", "/app%20x", "/app\\u00e9", "/app\\\\x", "/appé", "./app", "~/app"],
)  # fmt: skip
@pytest.mark.parametrize(
    "path",
    [f"{SITE}/a.pth", "bin/tool", f"{SITE}/p-1.dist-info/direct_url.json", f"{SITE}/__editable___p.py"],
)
def test_a_longer_path_or_an_address_is_not_the_project(text: str, path: str) -> None:
    """Where a project lies at ``/app``, other paths that contain these letters are left alone."""
    assert find(path, f"see '{text}' or {text}\n".encode(), PROJECT) is None


@pytest.mark.parametrize(
    "text",
    [
        "/app",
        "/app/src",
        "file:///app",
        "git+file:///app#egg=x",
        "/lib:/app:",
        "sqlite:////app/db",
        "-I/app/include",
    ],
)
def test_the_project_itself_is_found_and_binds(text: str) -> None:
    """A path of its own is found, whatever follows below it, and the template says that it is bound."""
    template = find(f"{SITE}/a.egg-link", f"{text}\n".encode(), PROJECT)
    assert template is not None
    assert template.bound
    assert b"/app" not in template.data


def test_documentation_may_speak_of_the_project() -> None:
    """In files that no installer writes, ``/app`` means something else; the venv too, unless it is staged."""
    for path in (f"{SITE}/pkg/docs.py", f"{SITE}/pkg/data.json", "share/doc/x.txt"):
        assert find(path, b"/app and /app/.venv\n", PROJECT) is None
    staged = find(f"{SITE}/pkg/config.py", b"prefix = '%s'\n" % STAGED.encode(), HERE, fresh=True)
    assert staged is not None
    assert not staged.bound


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("etc/app.ini", "data = {}/data\n"),
        ("etc/app.conf", "[x]\npath={}\nother = 1\n"),
        ("share/x/env", 'export DATA="{}/data"\n'),
        (f"{SITE}/sitecustomize.py", "import os\nos.environ['DATA'] = '{}/data'\n"),
        ("etc/jupyter/x.json", '{{"env": {{"DATA": "{}/data", "URL": "sqlite:///{}/db"}}}}\n'),
        ("etc/x.sh", "DATA='{}'/data\n"),
        ("etc/urls.txt", "file://{}/x file://localhost/y\n"),
    ],
)
@pytest.mark.parametrize("project", ["/srv/checkout", "/app"])
def test_what_was_written_here_names_the_project_and_the_interpreter_and_means_them(
    path: str, text: str, project: str
) -> None:
    """Such a file is given back at the same place, names nothing of the old one elsewhere, and is bound."""
    here, there = Places(STAGED, project, "/opt/py/bin/python3.12"), Places("/v", "/n", "/q/python3")
    data = text.replace("{}", project).replace("{{", "{").replace("}}", "}").encode()
    data += b"" if path.endswith(("json", "py")) else b"by /opt/py/bin/python3.12\n"
    assert mentions(path, data, here)
    template = find(path, data, here, written_here=True)
    assert template is not None
    assert template.bound
    assert fill(template.data, template.slots, here) == data or path == "etc/x.sh"
    filled = fill(template.data, template.slots, there)
    assert project.encode() not in filled
    assert b"/opt/py" not in filled
    assert find(path, data, here) is None


def test_json_with_escaped_slashes_is_found() -> None:
    """Some writers escape them; what is filled in is the same string."""
    data = json.dumps({"argv": [f"{STAGED}/bin/python", "/srv/checkout/x"]}).replace("/", "\\/").encode()
    assert mentions("share/a.json", data, HERE)
    moved_ = find("share/a.json", data, HERE, written_here=True)
    assert moved_ is not None
    assert json.loads(fill(moved_.data, moved_.slots, HERE)) == json.loads(data)
    assert json.loads(fill(moved_.data, moved_.slots, places("/n", "/p")))["argv"] == [
        "/n/bin/python",
        "/p/x",
    ]


@given(
    old=origins,
    new=targets,
    pieces=st.lists(
        st.sampled_from(["\n", "x = ", "; ", "VENV", "PROJECT", "VENV/bin", "PROJECT/a b", ":"]), min_size=1
    ),
)
def test_what_was_found_is_given_back_and_nothing_of_the_old_place_is_left(
    old: str, new: str, pieces: list[str]
) -> None:
    """For any text without quotes: filled in where it was found no byte changes, elsewhere all paths do."""
    old = old.replace("\n", "_").replace("\r", "_")
    text = " ".join(pieces).replace("PROJECT", old).replace("VENV", f"{old}/.venv")
    here, data = Places(f"{old}/.venv", old, "/usr/bin/python3"), os.fsencode(text)
    template = find("etc/x.conf", data, here, written_here=True)
    named = any("PROJECT" in piece or "VENV" in piece for piece in pieces)
    assert (template is not None) == named == mentions("etc/x.conf", data, here)
    if template is not None:
        assert fill(template.data, template.slots, here) == data
        assert b"/origin/" not in fill(template.data, template.slots, places(new, new))


def test_a_text_of_two_bytes_for_each_character_is_named() -> None:
    """It cannot be relocated, but it does not go by in silence."""
    for text, venv, project in (
        (HERE.venv, True, False),
        (HERE.project, False, True),
        ("/else", False, False),
    ):
        data = f"path={text}/x".encode("utf-16")
        assert (embeds(data, HERE), names_as_no_text(data, HERE)) == (venv, project)


@pytest.mark.parametrize(
    ("path", "venv", "project"),
    [
        ("pyvenv.cfg", True, False), ("bin/activate.fish", True, True), ("bin/deep/x", False, False),
        (f"{SITE}/x.pth", True, True), (f"{SITE}/pkg/x.py", False, False), (f"{SITE}/top.py", True, False),
        (f"{SITE}/__editable___x_finder.py", True, True), (f"{SITE}/x.dist-info/METADATA", True, False),
        (f"{SITE}/x.dist-info/direct_url.json", True, True), (f"{SITE}/x.egg-link", True, True),
        ("share/jupyter/kernels/k/kernel.json", True, True), ("lib/x.so", False, False),
    ],
)  # fmt: skip
def test_installers_write_paths_into_these_files_only(path: str, venv: bool, project: bool) -> None:
    """Which files are looked into is decided by their names."""
    assert (names_venv(path), names_project(path)) == (venv, project)


def test_the_venv_is_found_before_the_project_that_it_lies_in() -> None:
    """A script of a venv below the project is not bound to the project."""
    template = find("bin/tool", b"#!/app/.venv/bin/python\nx = '/app/.venv/share'\n", PROJECT)
    assert template is not None
    assert [slot.kind for slot in template.slots] == ["venv", "venv"]
    assert not template.bound


def test_binary_and_huge_files_are_not_taken_apart() -> None:
    """A NUL or more than four megabytes means that no installer generated it; binary ones are reported."""
    data = b"\0" + STAGED.encode() + b"\n"
    assert find(f"{SITE}/pkg/x.so", data, HERE, fresh=True) is None
    assert embeds(data, HERE)
    assert not embeds(b"\0/srv", HERE)
    assert find("bin/activate", STAGED.encode() + b"\n" * (4 << 20), HERE, fresh=True) is None


def test_a_script_for_python_with_a_binary_tail_still_gets_its_head() -> None:
    """A zip application is a first line and a zip file."""
    data = b"#!%s/bin/python\nPK\x03\x04\0\0" % STAGED.encode()
    assert moved("bin/zipapp", data, HERE, places("/n")) == b"#!/n/bin/python\nPK\x03\x04\0\0"


def test_a_project_at_the_root_is_never_found() -> None:
    """A single slash is everywhere and means nothing."""
    assert find("bin/tool", b"a / b\n", Places("/venv", "/", "/usr/bin/python3")) is None


# --------------------------------------------------------------------------- links


def test_links_into_venv_project_and_interpreter_have_slots(tmp_path: Path) -> None:
    """Absolute targets are filled in anew; relative and foreign ones stay as they are."""
    python = tmp_path / "python3.12"
    python.touch()
    (tmp_path / "python3").symlink_to(python)
    here = Places("/srv/v", "/srv/p", str(python))
    new = Places("/n/v'", "/n/p\n", "/usr/bin/py")
    cases = {
        "/srv/v/lib": "/n/v'/lib", "/srv/v": "/n/v'", "/srv/p/x": "/n/p\n/x", "/srv/v2": "/srv/v2",
        "lib": "lib", "../srv/v": "../srv/v", str(python): "/usr/bin/py",
        str(tmp_path / "python3"): "/usr/bin/py",
        "/srv": "/srv", "/dangling": "/dangling",
    }  # fmt: skip
    for target, expected in cases.items():
        text, slots = find_link(target, here, os.path.realpath)
        assert fill_link(Entry("bin/x", "link", target=text, slots=slots), new) == expected
        assert fill_link(Entry("bin/x", "link", target=text, slots=slots), here) in (target, str(python))


# --------------------------------------------------------------------------- RECORD


def record(rows: list[list[str]]) -> bytes:
    """Return a RECORD as installers write it."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")


names = st.text(st.sampled_from('ab ,"é\n'), min_size=1, max_size=8).map(lambda name: f"x{name}x")


@given(st.lists(names, min_size=1, max_size=6, unique=True), st.data())
def test_lines_of_rewritten_files_are_recomputed_and_no_others(
    listed: list[str], data: st.DataObject
) -> None:
    """Whatever the names, exactly the wanted rows get new hash and size, and the CSV stays whole."""
    wanted = set(data.draw(st.lists(st.sampled_from(listed), min_size=1)))
    rows = [[name, f"sha256=old{number}", str(number)] for number, name in enumerate(listed)]
    path = f"{SITE}/pkg-1.0.dist-info/RECORD"
    rows += [[f"../../../bin/{listed[0]}", "sha256=script", "7"], ["pkg-1.0.dist-info/RECORD", "", ""]]
    template = find_in_record(path, record(rows), {f"{SITE}/{name}" for name in wanted})
    assert template is not None
    digests = {f"{SITE}/{name}": digest_of(name.encode()) for name in wanted}
    result = fill(template.data, template.slots, HERE, digests)
    for name, row in zip(listed, csv.reader(io.StringIO(result.decode(), newline="")), strict=False):
        fields = record_fields(*digest_of(name.encode())).decode().split(",")
        assert row[1:] == (fields if name in wanted else rows[listed.index(name)][1:])
    assert result.count(b"script") == 1
    assert is_record(Entry(path, "template", slots=template.slots))
    everything = {f"{SITE}/{name}" for name in listed} | {f"bin/{listed[0]}", path}
    assert record_paths(path, record(rows)) == everything


def test_a_record_without_rewritten_files_or_without_sense_stays() -> None:
    """None means that the file is stored as it is."""
    path = f"{SITE}/pkg-1.0.dist-info/RECORD"
    assert find_in_record(path, b"a.py,sha256=x,1\n", {"bin/other"}) is None
    assert find_in_record(path, b'"a.py,sha256=x,1\n', {f"{SITE}/a.py"}) is None
    assert find_in_record(path, b"a\0.py,,\n\xff\xfe,,\n", {f"{SITE}/a.py"}) is None
    assert record_paths(path, b"/etc/passwd,,\n../../../../x,,\n../../..,,\n,,\n") == frozenset()
    assert record_paths(path, b"..data,,\n") == {f"{SITE}/..data"}


def test_a_record_says_nothing_of_an_installers_note_but_its_name() -> None:
    """It is another one in each venv, and the RECORD is the same: also the one that the installer wrote."""
    path, note = f"{SITE}/pkg-1.0.dist-info/RECORD", "pkg-1.0.dist-info/uv_cache.json"
    ours = f"a.py,sha256=x,1\r\n{note},,\r\npkg-1.0.dist-info/RECORD,,\n".encode()
    for said in ("sha256=y,194", ","):
        theirs = ours.replace(f"{note},,".encode(), f"{note},{said}".encode()) if said != "," else ours
        template = find_in_record(path, theirs, ())
        assert template == (ours, ())
        assert not is_record(Entry(path, "template"))
    other = ours.replace(note.encode(), b"pkg/uv_cache.json")
    assert find_in_record(path, other, ()) is None


def test_a_record_with_whole_paths_is_read_like_any_other() -> None:
    """As poetry's installer writes it: lines of rewritten files are recomputed, and their owner is known."""
    path = f"{SITE}/pkg-1.0.dist-info/RECORD"
    data = f"{STAGED}/{SITE}/pkg.pth,sha256=a,1\n{STAGED}/../x,sha256=b,2\n".encode()
    assert record_paths(path, data, STAGED) == {f"{SITE}/pkg.pth"}
    template = find_in_record(path, data, {f"{SITE}/pkg.pth"}, HERE)
    assert template is not None
    filled = fill(template.data, template.slots, places("/n"), {f"{SITE}/pkg.pth": digest_of(b"new")})
    assert filled.startswith(b"/n/%s/pkg.pth,%s\n" % (SITE.encode(), record_fields(*digest_of(b"new"))))


def test_requirements_of_local_packages_move_with_the_project() -> None:
    """METADATA names them by path. What is written below about paths is text."""
    path, project = f"{SITE}/pkg-1.0.dist-info/METADATA", HERE.project
    line = f"Requires-Dist: lib @ file://{project}/libs/lib\n"
    text = f"Name: pkg\n{line}Requires-Dist: x>1\n\nIt lies in {project}, or file://{project}/x.\n"
    template = find(path, text.encode(), HERE)
    assert template is not None
    moved = fill(template.data, template.slots, HERE._replace(project="/n"))
    assert moved.decode() == text.replace(line, "Requires-Dist: lib @ file:///n/libs/lib\n")
    assert find(path, text.replace(line, "").encode(), HERE) is None
    assert find(f"{SITE}/pkg/METADATA", text.encode(), HERE) is None


def test_absolute_paths_in_a_record_move_with_the_venv() -> None:
    """A path cannot add a line of its own: uninstalling deletes what is listed there."""
    path = f"{SITE}/pkg-1.0.dist-info/RECORD"
    data = b"%s/share/x,sha256=a,1\n" % STAGED.encode()
    template = find_in_record(path, data, (), HERE)
    assert template is not None
    assert fill(template.data, template.slots, places("/n\n/etc/x")) == b"/n /etc/x/share/x,sha256=a,1\n"


def test_only_the_rows_of_files_that_are_gone_are_taken_out() -> None:
    """All others keep their bytes: quotes, line ends, rows that lead out of site-packages, and odd ones."""
    kept = (
        b'"demo/with, comma.py",sha256=x,1\r\n../../../bin/demo,sha256=x,2\ndemo-1.0.dist-info/RECORD,,\n\n'
    )
    gone = b'"demo/tests/a\nb.py",sha256=x,3\n../../../share/doc/demo.txt,sha256=x,4\n'
    paths = ["lib/python3.12/site-packages/demo/tests/a\nb.py", "share/doc/demo.txt", "elsewhere"]
    assert without_rows(RECORD, gone + kept, (), paths.__contains__)[0] == kept
    assert without_rows(RECORD, kept, (), [].__contains__)[0] == kept


def test_slots_go_with_their_rows_and_the_others_stay_at_theirs() -> None:
    """What is to be filled in behind a row that goes is filled in at the same place of the same row."""
    rows = [b"a.py,,\n", b"../../../bin/x,\n", b"gone.py,,\n", b"../../../bin/gone,\n", b"../../../bin/z,\n"]
    data = b"".join(rows)
    starts = [sum(map(len, rows[:number])) for number in range(6)]
    slots = tuple(
        Slot(starts[number + 1] - 1, "record", "record", name)
        for number, name in ((1, "bin/x"), (3, "bin/gone"), (4, "bin/z"))
    )
    gone = {"lib/python3.12/site-packages/gone.py", "bin/gone"}
    pruned, left = without_rows(RECORD, data, slots, gone.__contains__)
    assert pruned == rows[0] + rows[1] + rows[4]
    assert [(slot.offset, slot.argument) for slot in left] == [
        (len(rows[0] + rows[1]) - 1, "bin/x"),
        (len(pruned) - 1, "bin/z"),
    ]


# --------------------------------------------------------------------------- filling in


def test_slots_that_do_not_fit_are_errors() -> None:
    """A damaged manifest never writes a damaged file."""
    with pytest.raises(ValueError, match="does not fit a template of 3 bytes"):
        fill(b"abc", [Slot(4, "venv", "raw")], HERE)
    with pytest.raises(ValueError, match="slot at 1 "):
        fill(b"abc", [Slot(2, "venv", "raw"), Slot(1, "venv", "raw")], HERE)
    with pytest.raises(KeyError):
        fill(b"", [Slot(0, "file", "record", "bin/x")], HERE)
    with pytest.raises(KeyError):
        fill(b"", [Slot(0, "venv", "nonsense")], HERE)
    with pytest.raises(KeyError):
        fill(b"", [Slot(0, "nonsense", "raw")], HERE)


def test_fields_of_a_record_are_spelled_as_the_standard_says() -> None:
    """URL-safe base64 without padding, then the size."""
    assert record_fields(*digest_of(b"")) == b"sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0"


@pytest.mark.parametrize("base", ["", "lib", "lib/python3.11/site-packages"])
def test_names_of_a_record_are_paths_of_the_venv_however_they_are_written(base: str) -> None:
    """The short way for plain names gives what joining and normalising gives for all."""
    parts = ["a", "b.py", "x.", "..", ".", "", "...", "c/d"]
    names = {"/".join(chosen) for count in (1, 2, 3) for chosen in itertools.product(parts, repeat=count)}
    for name in names - {""}:
        assert relocate._listed(base, name) == os.path.normpath(os.path.join(base, name)), name
