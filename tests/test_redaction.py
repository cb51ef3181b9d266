"""Credentials in text: what is hidden, what stays readable, and that it ends."""

from __future__ import annotations

import base64
import re
import string
from collections.abc import Mapping
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from venvflow.pure import redaction
from venvflow.pure.redaction import redact, redact_urls, redact_words, redactor, secrets_in, secrets_of

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("https://me:secret@host/x", "https://***@host/x"),
        ("git+https://token@host/x and ssh://git@h", "git+https://***@host/x and ssh://***@h"),
        ("https://me:p@ss@host/x@1", "https://***@host/x@1"),
        ("https://me:pa/ss@host/x", "https://***@host/x"),
        ("https://me:pa?s#s@host/x", "https://***@host/x"),
        ("https://host/x@main", "https://host/x@main"),
        ("https://host:8080/x@main", "https://host:8080/x@main"),
        ("http://[::1]:80/x@main", "http://[::1]:80/x@main"),
        ("https://a/simple,https://me:pw@b/simple", "https://a/simple,https://***@b/simple"),
        ("https://h/?a=1&X-Api-Token=abc&b=2", "https://h/?a=***&X-Api-Token=***&b=***"),
        ("https://h/?Signature=abc#sha256=1", "https://h/?Signature=***#sha256=1"),
        ("https://h/x?c2VjcmV0", "https://h/x?***"),
        ("https://h/x?c2VjcmV0=", "https://h/x?***"),
        ("https://h/x?sig=c2VjcmV0==&b=1", "https://h/x?sig=***&b=***"),
        ("https://h/x.whl?a=b#CANARY", "https://h/x.whl?a=***#***"),
        ("https://h/x.whl#egg=n[a]&subdirectory=a/b&CANARY", "https://h/x.whl#egg=n[a]&subdirectory=a/b&***"),
        ("https://h/x.whl#deadbeef and `https://h/#c2VjcmV0=`", "https://h/x.whl#*** and `https://h/#***`"),
        (f"https://h/x.whl#sha256:{COMMIT}", f"https://h/x.whl#sha256:{COMMIT}"),
        ("/p/https:/me:x@h cannot be run", "/p/https:/***@h cannot be run"),
        ("six @ file:six-1.whl#CANARY", "six @ file:six-1.whl#***"),
        ("../six.tar.gz?a=b#CANARY, x", "../six.tar.gz?a=***#***, x"),
        ("six-1.whl#CANARY", "six-1.whl#***"),
        ("//me:CANARY-pw@h/simple http:/me:CANARY-pw@h", "//***@h/simple http:/***@h"),
        ('https://me:pa"ss@h/x and <https://h/x>', "https://***@h/x and <https://h/x>"),
        (
            '["https://h/x","me@h"] <a href="https://h/x">me@h</a>',
            '["https://h/x","me@h"] <a href="https://h/x">me@h</a>',
        ),
        ("https://h/x;jsessionid=abc/y", "https://h/x;jsessionid=***/y"),
        ("https://h/x#access_token=abc&egg=x", "https://h/x#access_token=***&egg=x"),
        (f"git+https://h/x?rev=main#{COMMIT}", f"git+https://h/x?rev=***#{COMMIT}"),
        ("see (https://h/x?sig=abc).", "see (https://h/x?sig=***)."),
        ("https://:@h/", "https://***@h/"),
        ("Downloading six-1.whl?token=abc (11 kB)", "Downloading six-1.whl?token=*** (11 kB)"),
    ],
)
def test_urls_lose_users_passwords_and_the_values_of_queries(text: str, clean: str) -> None:
    """The rest of the URL stays readable, and what is clean stays as it is."""
    assert redact(text) == clean
    assert redact(clean) == clean


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Basic CANARY",
        "> proxy-authorization: bearer CANARY",
        "send: b'GET / HTTP/1.1\\r\\nAuthorization: Basic CANARY\\r\\n'",
        "headers {'Authorization': 'Basic CANARY', 'Accept': '*/*'}",
        "Set-Cookie: session=CANARY; Path=/",
        "PRIVATE-TOKEN: CANARY",
        "using Bearer CANARY-0123456789-abc",
        "password = CANARY",
        "UV_INDEX_CORP_PASSWORD=CANARY",
        "aws_secret_access_key=CANARY",
        '{"password": "CANARY and more", "user": "me"}',
        "tool --token CANARY --verbose",
        "tool --api-key=CANARY",
        "curl -u me:CANARY http://h",
        "Password for me: CANARY",
        "machine h login me password CANARY",
        "X-JFrog-Art-Api: CANARY",
        "sent Basic bWU6Q0FOQVJZCANARY0=",
        '{"auths": {"h": {"auth": "CANARY"}}}',
        "proxy me:CANARY-pw@proxy.example:3128",
        "PIP_PROXY=me:CANARY-pw@proxy.example:3128",
        '{"url": "https:\\/\\/me:CANARY@h\\/x"}',
        "next=https%3A%2F%2Fme%3ACANARY%40h%2Fx",
        "//registry.example/:_authToken=CANARY",
        "ghp_CANARY0123456789abcdef",
        "glpat-CANARY0123456789abcd",
        "pypi-AgEIcHlwaS5vcmcCANARYxxxx",
        "eyJhbGciOiJIUzI1.eyJDQU5BUlkCANARY.abc",
    ],
)
def test_what_is_called_a_secret_is_hidden(text: str) -> None:
    """However a program writes it: as a header, a setting, an option, in JSON; and well-known tokens."""
    assert "CANARY" not in redact(text)
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "nothing: here",
        "error: unexpected token: foo",
        "if token == x: return",
        "mail a@b",
        "the key: lock requirements.txt",
        "warning: api: six 1.0 may be any file of that version: there is no hash",
        "a ? b = c : d",
        "six==1.17.0 --hash=sha256:abc",
        "Building wheel for global-interpreter-lock-helpers (pyproject.toml)",
        "bearer of bad news",
        "basic functionality is tested",
        "image python:3.12@sha256:abc, git@github.com:org/repo.git",
        "pkg:pypi/six@1.17.0",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    """A log without its words would help nobody."""
    assert redact(text) == text


WORDS = (
    *(
        "Bearer",
        "basic",
        "Authorization",
        "Cookie",
        "art-api",
        "auth",
        "_auth",
        "PASSWORD",
        "api_key",
        "token",
    ),
    *(
        "machine",
        "login",
        "-u",
        "--user",
        "--proxy-user",
        "xoxb-",
        "AKCp",
        "eyJ",
        "ghp_",
        "hf_",
        "me",
        "host",
    ),
    *(":", "://", ":\\/\\/", "/", "@", "=", "?", "&", ";", "%3A%2F%2F", "%40", ".", "-", "'", '"', " ", "\n"),
    *("abcdef", "abcdefghij", "0123456789abcdef", "x1", "x.whl", "x.tar.gz", "#"),
)


@given(st.lists(st.sampled_from(WORDS), max_size=12).map("".join))
def test_no_text_is_spared_an_expression_that_would_change_it(text: str) -> None:
    """The look that spares most texts all others knows everything that these begin with."""
    told = redact_urls(text)
    for expression, instead in redaction._rules():
        told = expression.sub(instead, told)
    assert redact(text) == told


@pytest.mark.parametrize(
    "text", ["nothing to do: 19 tasks up to date", "store:api  stored 96895ae77815, 13 files, 29 KiB"]
)
def test_ordinary_lines_cost_one_look(text: str) -> None:
    """All expressions take longer to compile than a run with nothing to do may take to say so."""
    assert not re.search(redaction._MAY, text)


def test_words_of_commands_lose_credentials() -> None:
    """Also where an option and its value are two words; the number of words stays."""
    words = ["{uv}", "pip", "sync", "--index-url", "https://me:CANARY@h/", "--token", "CANARY", "-q", "x"]
    told = ["{uv}", "pip", "sync", "--index-url", "https://***@h/", "--token", "***", "-q", "x"]
    assert redact_words(words) == told
    words = ["curl", "-H", "Authorization: Bearer CANARY", "-u", "me:CANARY", "--token", "-q"]
    assert redact_words(words) == ["curl", "-H", "Authorization: ***", "-u", "***", "--token", "-q"]


USERS = st.text(string.ascii_letters + string.digits + "-._~!$'()*+,;=%:", max_size=20)
PLACES = st.text(string.ascii_letters + string.digits + "-._~/%", max_size=20)


@given(USERS, PLACES, st.text(string.ascii_letters + "%_-", max_size=8), st.text("ab \n", max_size=4))
def test_no_credential_of_any_url_comes_out(user: str, path: str, name: str, around: str) -> None:
    """Wherever in a text, whatever the name of the parameter; twice is the same as once."""
    text = f"{around}git+https://{user}CANARY@host/{path}?{name}=CANARY&{name}CANARY{around}"
    for hide in (redact, redact_urls):
        told = hide(text)
        assert "CANARY" not in told
        assert "@host/" in told
        assert hide(told) == told


AROUND = [
    "{}", "'{}'", '"{}"', "({})", "<{}>", "`{}`", "[{}]", "--index-url={}", "-i {}", "-i{}", "indexes: {}",
    "{}: 404", "error: {}, x",
    "x|{}|y", "{};", "\\x1b[31m{}", "({},)", "b'{}'", "=> {}", "{}\\n", "a,{},b", "a{}b",
]  # fmt: skip
LINKS = [
    *("http://u:CANARY@h/x", "https://CANARY@h", "https://CANARY:@h/", "ftp://u:CANARY@h:21/", "HTTP://U:CANARY@H/"),
    *("git+https://x-access-token:CANARY@h/r.git@main", "git+ssh://git:CANARY@h/r", "http://u:CANARY@[::1]/"),
    *("http://h/x?token=CANARY", "http://h/x?CANARY", "http://h/x?a&CANARY", "http://h/x?a=b;c=CANARY"),
    *("http://h/x#token=CANARY", "http://h/?X-Amz-Signature=CANARY&X-Amz-Date=1", "http://h:80/x?sig=CANARY%3D"),
    *("http://h/x?b=CANARY=", "http://h/x.whl#CANARY", "x.whl#CANARY"),
    *("/project/https:/u:CANARY@h/x", "http:/CANARY@h/x", "/p/ssh:/u:CANARY@h"),
    *("http://u:p%40CANARY@h/", "/simple/six.whl?token=CANARY", "six.whl?X-Amz-Signature=CANARY&b=1"),
    *("http://h/a?x=1&to=http://u:CANARY@k/", "https://u:CANARY@h,https://v:CANARY@k"),
]  # fmt: skip


@pytest.mark.parametrize("around", AROUND)
def test_links_are_known_in_all_that_programs_put_around_them(around: str) -> None:
    """Quotes, brackets, options, lists, escapes."""
    for link in LINKS:
        assert "CANARY" not in redact(around.format(link)), link


@given(st.text(max_size=200))
def test_any_text_can_be_redacted(text: str) -> None:
    """Nothing raises; what was hidden is not hidden again."""
    assert redact(redact(text)) == redact(text)
    assert isinstance(secrets_in(text), set)


@pytest.mark.slow
@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text",
    [
        *("://" + "@" * 50_000, "?" + "token" * 10_000, "token=" * 10_000, "'token':'" * 10_000),
        *("-" * 50_000, "x=" * 30_000, "?x=a" * 20_000, ";a" * 40_000, "://" + "&" * 60_000),
        *("password" + " " * 50_000, "eyJ" + "a-" * 50_000, "://h/" + ";a" * 30_000, "://a?" * 10_000),
        *("authorization" * 9000, "://a;" * 20_000),
    ],
)  # fmt: skip
def test_no_text_takes_long(text: str) -> None:
    """A builder may print anything."""
    redact(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("say hunter22 loudly", "say *** loudly"),
        ("https://host/hunter22/x", "https://host/***/x"),
        ("quoted p%40ssw0rd, plain p@ssw0rd", "quoted ***, plain ***"),
        ("setting-value", "***"),
        ("short: abc, path: /root/loudly, number: 12345678.9", None),
    ],
)
def test_what_a_program_was_given_is_hidden_wherever_it_stands(text: str, expected: str | None) -> None:
    """Variables that sound secret, credentials in URLs of any, and what the config names for the key."""
    environ: Mapping[str, str] = {
        "UV_INDEX_X_PASSWORD": "hunter22",
        "A_TOKEN": "abc",
        "HOME": "/root/loudly",
        "PIP_INDEX_URL": "https://me:p%40ssw0rd@host/",
        "SETTING": "setting-value",
        "NUMBER": "12345678.9",
    }
    hide = redactor(secrets_of(environ, ["SETTING", "NUMBER", "HOME", "UNSET"]))
    assert hide(text) == (text if expected is None else expected)


def test_where_a_shell_is_is_no_secret() -> None:
    """Its variable sounds like one, and all paths below would be hidden."""
    environ = {"PWD": "/home/you/project", "OLDPWD": "/home/you", "DB_PWD": "hunter22"}
    assert secrets_of(environ) == {"hunter22"}


def test_a_secret_is_found_in_other_spellings() -> None:
    """In a URL, in a header, and line by line."""
    hide = redactor({"me:p@ss w0rd", "-----BEGIN-----\nMIIabcdef\n-----END-----"})
    header = base64.b64encode(b"me:p@ss w0rd").decode()
    assert hide(f"x {header} y") == "x *** y"
    assert hide(f"x {quote('me:p@ss w0rd', safe='')} y") == "x *** y"
    assert hide("x MIIabcdef y") == "x *** y"


def test_secrets_of_lock_files_are_known() -> None:
    """What a URL of a lock file holds may be repeated by a tool without the URL."""
    lock = "--extra-index-url https://me:hunter22@h/x?sig=abcdefgh&rev=main\nsix==1.0\n"
    assert secrets_in(lock) == {"me:hunter22", "hunter22", "abcdefgh"}
