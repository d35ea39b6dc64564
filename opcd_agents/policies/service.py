"""A server that speaks the OpenAI interface: its address, its key, the model it serves. Knows neither policies nor teachers.

The `openai` package sends, and tries again what failed for a reason that passes (a lost connection, 408, 409, 429, 5xx). Of its settings from
the environment none is taken: they are meant for another server. An answer has a deadline and a largest size, and what a server says is
shown without what a terminal would obey, and without the key.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Final, cast, final
from urllib.parse import urlsplit

import openai

from opcd_agents.errors import ModelError, UsageError

KEY: Final = "OPCD_API_KEY"  # not OPENAI_API_KEY: that one is not for whatever server somebody names
_RETRIES: Final = 3
_LONGEST_NAME: Final = 1000  # a folder may be meant
_LARGEST: Final = 64 << 20  # bytes of an answer; 256 log-probabilities at each of 8,192 ids are less
_CHAT: Final = "/chat/completions"


class NoAnswerError(ModelError):
    """One request came to nothing; the next may not.

    Attributes:
        refused: Whether the server understood the request and would not do what it says.
    """

    refused = False


@final
@dataclass(frozen=True)
class Service:
    """One model of one server.

    Attributes:
        url: The base, such as http://host:8000/v1.
        model: What the server calls the model.
        root: Where the server has it from: a folder or a name on the hub, if it says so, else `model`.
    """

    url: str
    model: str
    root: str
    _client: openai.OpenAI = field(repr=False, compare=False)
    _patience: float

    @property
    def name(self) -> str:
        """How it is called in tables and provenance, and what `connect` finds it by again."""
        return f"{self.url}#{self.model}"

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Ask the model.

        Args:
            path: /completions or /chat/completions.
            body: All but the model.

        Raises:
            ModelError: The server knows no such model, or wants another key.
            NoAnswerError: This request failed.
        """
        chat = path == _CHAT
        with _told(self.url, path):
            # The typed arguments are those that the package insists on; the body goes out as it is.
            stream = (
                self._client.chat.completions.with_streaming_response.create(
                    model=self.model, messages=[], extra_body=dict(body)
                )
                if chat
                else self._client.completions.with_streaming_response.create(
                    model=self.model, prompt="", extra_body=dict(body)
                )
            )
            return _read(stream, self._patience)


def connect(address: str, patience: float = 300.0) -> Service:
    """Find a model behind an address.

    Args:
        address: The base of the interface, such as http://host:8000/v1; a name behind `#` names the model, else the first one it serves is taken.
        patience: Seconds to wait for one answer.

    Raises:
        UsageError: The address holds a password or a query, which would be kept with every episode.
        ModelError: Nobody is there, or it serves no such model.
    """
    url, _, wanted = address.partition("#")
    url = url.rstrip("/")
    client = _client(url, patience)
    with _told(url, "/models"):
        # A server that is not there should be told at once.
        listed = _read(client.with_options(max_retries=1).models.with_streaming_response.list(), patience).get("data")
    served = [one for one in cast("list[Any]", listed) if isinstance(one, dict)] if isinstance(listed, list) else []
    names = {str(one.get("id")): str(one.get("root") or one.get("id")) for one in cast("list[dict[str, Any]]", served)}
    model = wanted or next(iter(names), "")
    root = names.get(model, model)
    if not model:
        raise ModelError(f"wanted a model at {url}, got none; name it: {url}#NAME")
    if not _is_name(model):
        raise ModelError(f"wanted the name of a model from {url}, got {model!r:.80}; name it: {url}#NAME")
    return Service(url, model, root if _is_name(root) else model, client, patience)


def _is_name(text: str) -> bool:
    return len(text) <= _LONGEST_NAME and text.isprintable()


def _key() -> str:
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UsageError(f"wanted a key of printable ASCII in {KEY}, got one with other characters")
    return key


def _client(url: str, patience: float) -> openai.OpenAI:
    """A client that keeps to this server: no redirects, no proxy to this very machine, none of the settings for OpenAI's."""
    try:
        parts = urlsplit(url)
        bad = not parts.hostname or parts.port == 0 or "@" in parts.netloc or parts.query or not url.isprintable()
        with _no_settings():
            if not bad:
                transport = openai.DefaultHttpxClient(
                    follow_redirects=False, trust_env=not _is_here(parts.hostname or ""), timeout=patience
                )
                return openai.OpenAI(
                    base_url=url,
                    api_key=_key() or "none",
                    timeout=patience,
                    max_retries=_RETRIES,
                    http_client=transport,
                )
    except UsageError:
        raise
    except ImportError as error:  # a proxy of a kind that wants another package
        raise UsageError(f"cannot use the proxy that the environment names: {error!s:.200}") from error
    except Exception as error:  # whatever the library says to an address or a proxy that is none
        raise UsageError(f"wanted an address such as http://host:8000/v1, got {url!r:.80}: {error!s:.200}") from error
    raise UsageError(
        f"wanted an address such as http://host:8000/v1, got one with no host, or with a user or a query; a key goes into {KEY}"
    )


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def _no_settings() -> Generator[None]:
    """The environment without what is meant for OpenAI's own server: its organisation, its headers."""
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("OPENAI_")}
    try:
        yield
    finally:
        os.environ.update(kept)


def _read(stream: Any, patience: float) -> dict[str, Any]:
    """The JSON object of an answer; {} if it is another value."""
    began, content = time.monotonic(), bytearray()
    with stream as response:
        for part in response.iter_bytes():
            content += part
            if len(content) > _LARGEST:
                raise ValueError(f"more than {_LARGEST >> 20} MiB")
            if time.monotonic() - began > patience * (1 + _RETRIES):
                raise ValueError(f"only a part of it in {time.monotonic() - began:.0f} s")
    found: Any = json.loads(bytes(content))
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


@contextmanager
def _told(url: str, path: str) -> Generator[None]:
    """What goes wrong with a request, as our own errors."""
    where = urlsplit(url).netloc
    try:
        yield
    except openai.AuthenticationError as error:
        raise ModelError(f"{where} wants another key ({error.status_code}); set {KEY}") from None
    except openai.NotFoundError as error:
        raise ModelError(f"{where} knows no {path} or no such model: {_said(error)}") from None
    except openai.APIStatusError as error:
        failed = NoAnswerError(f"{where} refused: {error.status_code} {_said(error)}")
        failed.refused = error.status_code in (400, 422)
        raise failed from None
    except openai.APIConnectionError as error:
        raise NoAnswerError(_plain(f"wanted an answer of {where}, got none: {error} {error.__cause__ or ''}")) from None
    except Exception as error:  # of this package, of the one beneath it, or of JSON: what came was no answer
        raise NoAnswerError(_plain(f"wanted JSON from {where}, got {type(error).__name__}: {error}")) from None


def _said(error: openai.APIStatusError) -> str:
    try:
        return _plain(error.response.read()[:2000].decode(errors="replace"))
    except Exception:  # it went away while it said why
        return "and did not say why"


def _plain(text: str) -> str:
    """A text in a line, without the key and without what a terminal would obey."""
    key = os.environ.get(KEY, "").strip()
    text = text.replace(key, "***") if key else text
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:300]
