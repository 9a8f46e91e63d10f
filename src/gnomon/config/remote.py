"""Configurations from a web address: fetched with limits, then composed like a local file."""

from __future__ import annotations

import re
import tempfile
import time
import urllib.error
import urllib.request
from functools import cache
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit

from gnomon.config._source import MAX_BYTES, parse_source
from gnomon.errors import ConfigError

TIMEOUT_S = 20.0
_CHUNK_BYTES = 2**16


def fetch_config(url: str, timeout_s: float = TIMEOUT_S) -> tuple[Path, str]:
    """Fetch a configuration and return the folder and the name by which `compose` finds it.

    The folder is removed when the program ends. Raises ConfigError for an address that is not http(s), cannot be
    reached within `timeout_s` seconds or does not answer with YAML of at most MAX_BYTES bytes, and for a configuration
    that builds on others (`defaults`), because these would not be fetched.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise ConfigError(f"'{url}' is not a web address that configurations can come from. Use https:// or http://.")
    text, content_type = _download(url, timeout_s)
    if "html" in content_type:
        raise ConfigError(
            f"'{url}' is a web page, not a YAML file. Give the address of the file itself; "
            "on GitHub and GitLab that is the one behind 'Raw'."
        )
    _refuse_defaults(parse_source(text, url), url)
    name = re.sub(r"[^\w-]", "_", Path(unquote(urlsplit(url).path)).stem) or "config"
    folder = Path(tempfile.mkdtemp(dir=_scratch().name))
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder, name


def _download(url: str, timeout_s: float) -> tuple[str, str]:
    """Return the text at an address and its content type."""
    deadline = time.monotonic() + timeout_s
    request = urllib.request.Request(url, headers={"User-Agent": "gnomon", "Accept": "application/yaml, text/*, */*"})
    data = bytearray()
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            while chunk := response.read1(_CHUNK_BYTES):  # a server that sends a byte a second must not hold us
                data += chunk
                if len(data) > MAX_BYTES:
                    raise ConfigError(f"'{url}' has more than {MAX_BYTES} bytes, the limit for configurations.")
                if time.monotonic() > deadline:
                    raise TimeoutError
            content_type = str(response.headers.get("Content-Type", ""))
    except urllib.error.HTTPError as error:
        raise ConfigError(f"'{url}' answers {error.code} {error.reason}. Check the address and your access.") from None
    except (OSError, ValueError) as error:
        _refuse_unreachable(url, error, timeout_s)
    try:
        return data.decode("utf-8"), content_type
    except UnicodeDecodeError as error:
        raise ConfigError(f"'{url}' is not text in UTF-8: {error.reason} at byte {error.start}.") from None


def _refuse_unreachable(url: str, error: Exception, timeout_s: float) -> NoReturn:
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        raise ConfigError(f"'{url}' did not answer completely within {timeout_s:g} s. Try again, or save the file.")
    raise ConfigError(f"'{url}' cannot be fetched: {reason}. Check the address and the network.") from None


def _refuse_defaults(data: Any, url: str) -> None:
    defaults = data.get("defaults", []) if isinstance(data, dict) else []
    others = [entry for entry in defaults if entry != "_self_"] if isinstance(defaults, list) else [defaults]
    if others:
        raise ConfigError(
            f"'{url}' builds on other configurations (defaults: {others}), and only this one file is fetched. "
            "Download its folder and use --config FILE, or use a configuration that is complete in one file."
        )


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    """Return a folder that is removed when the program ends."""
    return tempfile.TemporaryDirectory(prefix="gnomon-config-")
