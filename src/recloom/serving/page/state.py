"""What somebody looks at: all of it stands in the address, so that a link is the same page again."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

CONTEXT = "context."
USUAL_K = "10"


@dataclass(frozen=True)
class State:
    """Whose lists are looked at, and in which situation; everything as it was typed."""

    user: str = ""
    session: str = ""
    history: tuple[str, ...] = ()
    """Items of a history that is typed, oldest first; a user or a session goes before it."""
    k: str = USUAL_K
    context: Mapping[str, str] = field(default_factory=dict)
    words: str = ""
    """What is searched for."""
    language: str = ""
    """Of the reasons; English where nothing is said."""

    @classmethod
    def read(cls, query: QueryParams) -> "State":
        """Read an address. Ids may also come as `ids`: one line or comma between any two."""
        typed = query.get("ids", "").replace(",", "\n").splitlines()
        return cls(
            query.get("user", "").strip(),
            query.get("session", "").strip(),
            (*query.getlist("h"), *(id_.strip() for id_ in typed if id_.strip())),
            query.get("k", "").strip() or USUAL_K,
            {name.removeprefix(CONTEXT): value.strip() for name, value in query.items()
             if name.startswith(CONTEXT) and value.strip()},
            query.get("q", "").strip(),
            query.get("language", "").strip(),
        )  # fmt: skip

    @property
    def is_person(self) -> bool:
        """Whether what is done here is remembered, as what a user or a session did."""
        return bool(self.user or self.session)

    @property
    def who(self) -> dict[str, Any]:
        """Return whose list is wanted, as the interface spells it."""
        if self.user:
            return {"user_id": self.user}
        return {"session_id": self.session} if self.session else {"history": list(self.history)}

    def fields(self, *without: str) -> list[tuple[str, str]]:
        """Return the address as the fields of a form, but for those that the form asks about itself."""
        spelled = [
            ("user", self.user),
            ("session", self.session),
            *(("h", item) for item in self.history),
            ("k", self.k if self.k != USUAL_K else ""),
            *((CONTEXT + name, value) for name, value in self.context.items()),
            ("q", self.words),
            ("language", self.language),
        ]
        return [(name, value) for name, value in spelled if value and name.split(".")[0] not in without]

    def query(self) -> str:
        """Return the address behind the question mark."""
        return urlencode(self.fields())

    def link(self, **changes: Any) -> str:
        """Return the address of the page with something changed."""
        return f"/?{replace(self, **changes).query()}"

    def with_item(self, item_id: str) -> str:
        """Return the address of the page after a further item."""
        return self.link(history=(*self.history, item_id))

    def without_item(self, place: int) -> str:
        """Return the address of the page without one item of the history."""
        return self.link(history=self.history[:place] + self.history[place + 1 :])

    def as_session(self) -> str:
        """Return the address of a new session, of which nobody has heard."""
        return self.link(user="", history=(), words="", session=f"page-{secrets.token_hex(4)}")
