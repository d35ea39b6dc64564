"""A server that speaks the OpenAI interface: its address, its key, the model it serves. Knows neither policies nor teachers.

The `openai` package sends, waits, and tries again what failed for a reason that passes (a lost connection, 408, 409, 429, 5xx).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast, final
from urllib.parse import urlsplit

import openai

from opcd_agents.errors import ModelError, UsageError

KEY: Final = "OPCD_API_KEY"  # not OPENAI_API_KEY: that one is not for whatever server somebody names
_RETRIES: Final = 3
_LONGEST_NAME: Final = 200


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

    @property
    def name(self) -> str:
        """How it is called in tables and provenance, and what `connect` finds it by again."""
        return f"{self.url}#{self.model}"

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Ask the model.

        Args:
            path: Such as /completions.
            body: All but the model.

        Raises:
            ModelError: The server knows no such model, or wants another key.
            NoAnswerError: This request failed.
        """
        return _json(self._client, path, {"model": self.model, **body})

    def close(self) -> None:
        """Give up what is on its way."""
        self._client.close()


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
    _check(url)
    # `max_retries` is given with each request: a server that is not there should be told at once.
    client = openai.OpenAI(base_url=url, api_key=os.environ.get(KEY) or "none", timeout=patience, max_retries=_RETRIES)
    listed = _json(client.with_options(max_retries=1), "/models").get("data")
    served = [one for one in cast("list[Any]", listed) if isinstance(one, dict)] if isinstance(listed, list) else []
    names = {str(one.get("id")): str(one.get("root") or one.get("id")) for one in cast("list[dict[str, Any]]", served)}
    model = wanted or next(iter(names), "")
    if not model:
        raise ModelError(f"wanted a model at {url}, got none; name it: {url}#NAME")
    if len(model) > _LONGEST_NAME or not model.isprintable():
        raise ModelError(f"wanted the name of a model from {url}, got {model!r:.80}; name it: {url}#NAME")
    return Service(url, model, names.get(model, model), client)


def _check(url: str) -> None:
    try:
        parts = urlsplit(url)
        bad = not parts.hostname or parts.port == 0 or "@" in parts.netloc or parts.query or not url.isprintable()
    except ValueError:
        bad = True
    if bad:
        raise UsageError(
            f"wanted an address such as http://host:8000/v1, got one with no host, or with a user or a query; a key goes into {KEY}"
        )


def _json(client: openai.OpenAI, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    where = client.base_url.host
    try:
        content = client.get(path, cast_to=bytes) if body is None else client.post(path, body=dict(body), cast_to=bytes)
        found: Any = json.loads(content)
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        raise ModelError(f"{where} wants another key ({error.status_code}); set {KEY}") from error
    except openai.NotFoundError as error:
        raise ModelError(f"{where} knows no {path} or no such model: {_said(error)}") from error
    except openai.APIStatusError as error:
        failed = NoAnswerError(f"{where} refused: {error.status_code} {_said(error)}")
        failed.refused = error.status_code in (400, 422)
        raise failed from error
    except openai.APIConnectionError as error:
        raise NoAnswerError(
            f"wanted an answer of {where}, got none: {error!s:.200} {error.__cause__ or ''!s:.200}"
        ) from error
    except (openai.OpenAIError, ValueError, RecursionError) as error:
        raise NoAnswerError(f"wanted JSON from {where}, got {error!s:.200}") from error
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _said(error: openai.APIStatusError) -> str:
    return " ".join(error.response.text.split())[:200]
