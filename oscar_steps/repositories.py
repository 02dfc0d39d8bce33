"""What a site watches, as its `farm.toml` says it: where OSCAR's source is."""

from __future__ import annotations

from typing import Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from oscar_steps.sources.svn import PASSWORD_IN_URL

_FOLDER = r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Repository(_Frozen):
    """OSCAR's Subversion repository. `url` is the folder with trunk, branches, tags; master and workers reach it."""

    url: str = Field(pattern=r"^(svn|svn\+ssh|https?|file)://[^\s]+$")
    trunk: str = Field(default="trunk", pattern=_FOLDER)
    branches: str = Field(default="branches", pattern=_FOLDER)
    tags: str = Field(default="tags", pattern=_FOLDER)
    poll: int = Field(default=60, ge=1)
    """Seconds between two looks at the repository."""
    history: int = Field(default=200, ge=10)
    """Without effect, for sites that have it: a look asks for every revision since the one before."""
    skip: tuple[str, ...] = ("ChangeLog", "CREDITS", "doc/*")
    """Shell patterns of paths in a branch that are not installed: a commit that only writes these is not tested."""
    burst: Literal["newest", "each"] = "newest"
    """Several commits of a branch within `[schedule] tree_stable`: the newest is tested, for all authors; or each."""
    revision_link: str = Field(default="", pattern=r"^$|^https?://[^%\s]*%s[^%\s]*$")
    """Address of a revision's web page, with %s where its number goes; empty: there is none."""

    @field_validator("url")
    @classmethod
    def _has_no_password(cls, url: str) -> str:
        if PASSWORD_IN_URL.search(url):
            raise PydanticCustomError(
                "password",
                "this URL must not contain a password, because logs and mails show it, and svn ignores it there; "
                "as the farm's user, type svn info and the URL without it: svn asks for the password and keeps it",
            )
        return url

    def source_url(self, branch: str) -> str:
        """The URL that is checked out for `branch` ('trunk', 'branches/NAME', 'tags/NAME')."""
        return f"{self.url.rstrip('/')}/{quote(branch)}"
