"""The environment variables of the builders, and of other programs that venvflow starts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping

_EVERYBODY = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TMP", "TEMP"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "FTP_PROXY"),
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ftp_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC"),
    *("GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "GIT_SSH", "GIT_SSH_COMMAND", "GIT_ASKPASS", "SSH_AUTH_SOCK"),
    *("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GNUPGHOME", "DBUS_SESSION_BUS_ADDRESS"),
    *("GOOGLE_APPLICATION_CREDENTIALS", "PYENV_ROOT", "PYENV_VERSION"),
)
_COMPILERS = (
    *("CC", "CXX", "CPP", "LD", "AR", "AS", "NM", "RANLIB", "STRIP", "FC", "F77", "MAKEFLAGS"),
    *("CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "LDLIBS", "LIBS", "FFLAGS", "FCFLAGS", "RUSTFLAGS"),
    *("LIBRARY_PATH", "LD_LIBRARY_PATH", "CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH"),
    *("PKG_CONFIG", "PKG_CONFIG_PATH", "PKG_CONFIG_LIBDIR", "SOURCE_DATE_EPOCH", "CUDA_HOME", "CUDA_PATH"),
    *("ARCHFLAGS", "MACOSX_DEPLOYMENT_TARGET", "SDKROOT", "DEVELOPER_DIR"),
    *("CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"),
)
_PIP = (
    *("INDEX_URL", "EXTRA_INDEX_URL", "FIND_LINKS", "NO_INDEX", "CERT", "CLIENT_CERT", "TRUSTED_HOST"),
    *("PROXY", "CACHE_DIR", "NO_CACHE_DIR", "TIMEOUT", "DEFAULT_TIMEOUT", "RETRIES", "RESUME_RETRIES"),
    *("KEYRING_PROVIDER", "CONFIG_FILE", "REQUIRE_HASHES"),
)
_UV = (
    *("DEFAULT_INDEX", "INDEX", "EXTRA_INDEX_URL", "FIND_LINKS", "NO_INDEX", "CACHE_DIR", "NO_CACHE"),
    *("OFFLINE", "HTTP_TIMEOUT", "REQUEST_TIMEOUT", "HTTP_CONNECT_TIMEOUT", "HTTP_RETRIES", "LOCK_TIMEOUT"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "KEYRING_PROVIDER", "CREDENTIALS_DIR", "INSECURE_HOST"),
    *("NATIVE_TLS", "SYSTEM_CERTS", "CONFIG_FILE", "NO_CONFIG", "REQUIRE_HASHES", "PYTHON_INSTALL_DIR"),
)
_POETRY = (
    *("CACHE_DIR", "CONFIG_DIR", "DATA_DIR", "HOME", "REQUESTS_MAX_RETRIES", "REQUESTS_TIMEOUT"),
    *("KEYRING_ENABLED", "INSTALLER_MAX_WORKERS", "INSTALLER_PARALLEL"),
)
_PDM = ("CACHE_DIR", "CONFIG_FILE", "REQUEST_TIMEOUT", "IGNORE_STORED_INDEX")
_PIPENV = ("CACHE_DIR", "PYPI_MIRROR", "TIMEOUT", "INSTALL_TIMEOUT", "REQUESTS_TIMEOUT", "MAX_RETRIES")

_PLAIN = frozenset(
    (
        *_EVERYBODY,
        *_COMPILERS,
        *(f"PIP_{name}" for name in _PIP),
        *(f"UV_{name}" for name in _UV),
        *(f"POETRY_{name}" for name in _POETRY),
        *(f"PDM_{name}" for name in _PDM),
        *(f"PIPENV_{name}" for name in _PIPENV),
    )
)
_FAMILIES = (
    *("LC_", "XDG_", "DYLD_", "NIX_", "CMAKE_", "AWS_", "AZURE_", "ARTIFACTS_KEYRING_"),
    *("UV_INDEX_", "UV_CONCURRENT_", "PDM_PYPI_"),
    *("POETRY_HTTP_BASIC_", "POETRY_PYPI_TOKEN_", "POETRY_CERTIFICATES_", "POETRY_REPOSITORIES_"),
)
_NEVER = re.compile(
    r"PYTHON.*|VIRTUAL_ENV.*|CONDA_.*|__PYVENV_LAUNCHER__"
    r"|PIP_(?:TARGET|PREFIX|ROOT|USER|PYTHON|REQUIRE_VIRTUALENV|NO_COMPILE|COMPILE|DRY_RUN|REPORT)"
    r"|UV_(?:PROJECT_ENVIRONMENT|PROJECT|PYTHON|TARGET|SYSTEM_PYTHON|COMPILE_BYTECODE|LINK_MODE|WORKING_DIR.*)"
    r"|POETRY_VIRTUALENVS_.*|PDM_(?:USE_VENV|PYTHON|IGNORE_.*_PYTHON|IGNORE_ACTIVE_VENV)"
    r"|PIPENV_(?:IGNORE_VIRTUALENVS|VENV_IN_PROJECT|CUSTOM_VENV_NAME|PYTHON|PIPFILE)"
)


_TOOLS = ("UV_", "PIP_", "POETRY_", "PDM_", "PIPENV_")


def steers_tools(environ: Mapping[str, str], extra: Iterable[str]) -> bool:
    """Return whether a variable among *extra* may tell a tool *what* to install, or for which platform."""
    usual = child_environment(environ)
    return any(name.startswith(_TOOLS) for name in child_environment(environ, extra) if name not in usual)


def child_environment(environ: Mapping[str, str], extra: Iterable[str] = ()) -> dict[str, str]:
    """Return what of *environ* a builder may see.

    That is a list of names: what every program needs, what compilers need, and of each tool's own variables
    those that say *where from* (index, proxy, cache, credentials) but none that say *what*. The names in
    *extra* are in the venv's key and pass too, except for those that would send the build to another
    place or Python.
    """
    wanted = _PLAIN.union(extra)
    seen = {
        name: value
        for name, value in environ.items()
        if (name in wanted or name.startswith(_FAMILIES)) and not _NEVER.fullmatch(name)
    }
    seen.setdefault("PATH", os.defpath)
    return seen
