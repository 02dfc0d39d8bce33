"""The Buildbot master as a client sees it: builds, steps and logs by REST.

Buildbot 4.3 now and then cuts an answer short, so whatever is not whole JSON is asked for again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any

import httpx

from demo.errors import NotReady

SUCCESS = 0
RESULT_NAMES = ("success", "warnings", "failure", "skipped", "exception", "retry", "cancelled")
_TRIES = 8


@dataclass(frozen=True)
class Build:
    """A build as the master described it at one moment. `results` is Buildbot's number; None while it runs."""

    build_id: int
    page: str
    complete: bool
    results: int | None

    @property
    def result_name(self) -> str:
        return "running" if self.results is None else RESULT_NAMES[self.results]


class Master:
    """The REST interface at `base` (with a slash at its end)."""

    def __init__(self, base: str) -> None:
        self.base = base
        self._client = httpx.Client(base_url=f"{base}api/v2/", timeout=20, trust_env=False)

    def close(self) -> None:
        self._client.close()

    def answers(self) -> bool:
        """Whether the master serves its pages."""
        try:
            return self._client.get("application.spec").status_code < 500
        except httpx.HTTPError:
            return False

    def has_worker(self, name: str) -> bool:
        """Whether that worker is connected."""
        return any(worker["connected_to"] for worker in self._get("workers", "workers", name=name))

    def build_of(self, revision: int, builder: str) -> Build | None:
        """The first build of that builder with that revision; None when there is none yet."""
        builder_ids = [entry["builderid"] for entry in self._get("builders", "builders", name=builder)]
        for change in self._get("changes", "changes", revision=str(revision)):
            for build in self._get(f"changes/{change['changeid']}/builds", "builds"):
                if build["builderid"] in builder_ids:
                    return self._build(build)
        return None

    def wait_for_build(self, revision: int, builder: str, seconds: float) -> Build:
        """The build that the commit of `revision` brings about. Raises NotReady after `seconds`."""
        deadline = monotonic() + seconds
        while monotonic() < deadline:
            if build := self.build_of(revision, builder):
                return build
            sleep(0.5)
        raise NotReady(f"revision {revision} started no build of {builder} within {seconds:.0f} s; see {self.base}")

    def build(self, build_id: int) -> Build:
        return self._build(self._get(f"builds/{build_id}", "builds")[0])

    def steps(self, build_id: int) -> list[dict[str, Any]]:
        """Steps in their order."""
        return sorted(self._get(f"builds/{build_id}/steps", "steps"), key=lambda step: int(step["number"]))

    def logs(self, step_id: int) -> list[dict[str, Any]]:
        return self._get(f"steps/{step_id}/logs", "logs")

    def lines(self, log_id: int, first: int, count: int) -> list[str]:
        """Up to `count` lines of a log, from line `first` (counted from 0)."""
        chunks = self._get(f"logs/{log_id}/contents", "logchunks", offset=first, limit=count)
        return [line for chunk in chunks for line in chunk["content"].splitlines()]

    def property(self, build_id: int, name: str) -> Any:
        """A property of a build, or None."""
        for properties in self._get(f"builds/{build_id}/properties", "properties"):
            if name in properties:
                return properties[name][0]
        return None

    def _build(self, entry: dict[str, Any]) -> Build:
        page = f"{self.base}#/builders/{entry['builderid']}/builds/{entry['number']}"
        return Build(entry["buildid"], page, bool(entry["complete"]), entry["results"])

    def _get(self, path: str, key: str, **query: str | int) -> list[dict[str, Any]]:
        said = ""
        for attempt in range(_TRIES):
            try:
                answer: list[dict[str, Any]] = self._client.get(path, params=query).raise_for_status().json()[key]
                return answer
            except (httpx.HTTPError, json.JSONDecodeError, KeyError) as error:
                said = f"{type(error).__name__}: {error}"
                sleep(0.1 * 2**attempt)
        raise NotReady(f"the master gave no whole answer to {self.base}api/v2/{path} in {_TRIES} tries: {said}")
