"""Tells Cairn what an MCP server did downstream for a call.

The handle in ``_meta["io.cairn/call"]`` says which call that was; it is a secret of the server's. See docs/actions.md of Cairn.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, Optional

__all__ = ["Actions", "NotReported", "handle_of"]

META = "io.cairn/call"
_TRIES = 4
_PAUSE_S = 0.25


class NotReported(Exception):
    """Cairn did not take the action; ``status`` is its answer's, 0 where there was none."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def handle_of(source: Any) -> Optional[str]:
    """The handle of a call, from the SDK's context, from a request's ``_meta``, or as it is; ``None`` where there is none."""
    if isinstance(source, str):
        return source or None
    for meta in (source, *_metas(source)):
        found = meta.get(META) if isinstance(meta, Mapping) else (getattr(meta, "model_extra", None) or {}).get(META)
        if isinstance(found, str) and found:
            return found
    return None


def _metas(source: Any) -> list[Any]:
    """Where the versions of the SDK keep a request's ``_meta``."""
    found = []
    for holder in (source, _quietly(source, "request_context")):
        meta = _quietly(holder, "meta")
        if meta is not None:
            found.append(meta)
    return found


def _quietly(holder: Any, name: str) -> Any:
    try:
        return getattr(holder, name, None)
    except (LookupError, ValueError, RuntimeError):
        # A context outside of a request.
        return None


class Actions:
    """Reports actions to one Cairn."""

    def __init__(self, url: Optional[str] = None, key: Optional[str] = None, timeout: float = 10.0) -> None:
        self._url = (url or os.environ.get("MCP_ACTIONS_URL", "")).rstrip("/")
        self._key = key or os.environ.get("MCP_ACTIONS_KEY")
        self._timeout = timeout

    def report(
        self,
        call: Any,
        *,
        system: str,
        kind: str,
        id: str,
        state: str,
        occurred_at: Optional[str] = None,
        idempotency_key: Optional[str] = None,
    ) -> Optional[str]:
        """Adds an action to a call; the id of its event, once it is durable. ``None`` where the call did not come through Cairn."""
        handle = handle_of(call)
        if handle is None:
            return None
        if not self._url:
            raise NotReported(0, "where is Cairn? set MCP_ACTIONS_URL, or give url")
        action = {"call": handle, "system": system, "kind": kind, "id": id, "state": state}
        if occurred_at is not None:
            action["occurred_at"] = occurred_at
        if idempotency_key is not None:
            action["idempotency_key"] = idempotency_key
        answer = self._send(json.dumps({"actions": [action]}).encode())
        return str(answer["actions"][0]["event_id"])

    async def report_async(self, call: Any, **action: Any) -> Optional[str]:
        """The same, without holding up others."""
        return await asyncio.to_thread(self.report, call, **action)

    def _send(self, body: bytes) -> dict[str, Any]:
        headers = {"content-type": "application/json"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(f"{self._url}/v1/actions", data=body, headers=headers, method="POST")
        failed = NotReported(0, "nothing was tried")
        for tried in range(_TRIES):
            if tried:
                time.sleep(_PAUSE_S * 2**tried)
            try:
                with urllib.request.urlopen(request, timeout=self._timeout) as response:
                    return dict(json.load(response))
            except urllib.error.HTTPError as error:
                failed = NotReported(error.code, _says(error))
                # An action that is sent twice counts once, so what may pass is tried again.
                if error.code not in (408, 429, 502, 503, 504):
                    break
            except OSError as error:
                failed = NotReported(0, f"Cairn at {self._url} does not answer: {error}")
        raise failed


def _says(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"])
    except (ValueError, KeyError, TypeError, OSError):
        return f"Cairn answered {error.code}"
