"""What was watched is not what is there now: the operator decides."""

from __future__ import annotations

import shutil
import subprocess

from oscar_steps.errors import HostError
from oscar_steps.master.watch import svn as pollers
from oscar_steps.master.watch.svn import FarmPoller
from tests.unit.master.watch.support import AtRepository, FakeUpdates, run


class AnotherInItsPlace(AtRepository):
    """A repository that was loaded anew or restored means other commits by the same numbers."""

    def setUp(self) -> None:
        super().setUp()
        self.told: list[tuple[str, str]] = []
        self.patch(pollers, "notify_operator", lambda _master, subject, text: self.told.append((subject, text)))
        self.state = self.path.parent / "svn-last-revision"
        self.note = self.path.parent / "svn-repository"

    async def watched(self) -> tuple[FarmPoller, FakeUpdates]:
        """A poller that has seen revisions 1 to 4, and stored 2 to 4."""
        updates = FakeUpdates("")
        poller = await self.looking(updates, state=self.state)
        await poller.poll()
        for number in range(3):
            self.commit(f"trunk/d{number}")
        await poller.poll()
        assert (updates.stored, self.told) == (["2", "3", "4"], [])
        return poller, updates

    def anew(self, folders: int, uuid: str = "") -> None:
        """Another repository stands at the address: revision 1 is trunk, and some more."""
        uuid = uuid or "0dc2a0e8-0000-4a5e-9d10-000000000002"
        shutil.rmtree(self.path)
        run("svnadmin", "create", self.path)
        run("svnadmin", "setuuid", self.path, uuid)
        self.commit("trunk")
        for number in range(folders):
            self.commit(f"trunk/other{number}")

    async def stops_until_told(self, poller: FarmPoller, updates: FakeUpdates, why: str) -> None:
        for _ in range(4):
            await poller.poll()
        self.flushLoggedErrors(HostError)
        assert [subject for subject, _ in self.told] == ["the repository is not the one that was watched"]
        assert why in self.told[0][1] and f"remove {self.note}" in self.told[0][1]
        assert why in poller.trouble
        again = await self.looking(updates, state=self.state)  # a restart changes nothing
        await again.poll()
        self.flushLoggedErrors(HostError)
        assert updates.stored == ["2", "3", "4"] and why in again.trouble
        self.note.unlink()
        await again.poll()
        assert (again.trouble, updates.stored) == ("", ["2", "3", "4"])
        self.commit("trunk/new")
        await again.poll()
        after = await self.looking(updates, state=self.state)
        self.commit("trunk/newer")
        await after.poll()
        assert updates.stored[3:] == [str(int(updates.stored[3])), str(int(updates.stored[3]) + 1)]
        assert (self.flushLoggedErrors(), after.trouble) == ([], "")

    def uuid(self) -> str:
        words = ["svnlook", "uuid", str(self.path)]
        return subprocess.run(words, check=True, capture_output=True).stdout.decode().strip()

    async def test_a_repository_that_was_loaded_anew_is_not_tested_until_the_operator_says_so(self) -> None:
        poller, updates = await self.watched()
        self.anew(9)
        await self.stops_until_told(poller, updates, "its UUID is 0dc2a0e8-0000-4a5e-9d10-000000000002, and was ")
        assert updates.stored[3] == "11"

    async def test_a_backup_with_lower_numbers_is_not_tested_until_the_operator_says_so(self) -> None:
        poller, updates = await self.watched()
        self.anew(1, self.uuid())
        await self.stops_until_told(poller, updates, "its newest revision is 2, but the farm has seen 4 already")
        assert updates.stored[3:] == ["3", "4"], "other commits than the old 3 and 4"

    async def test_a_backup_that_has_grown_past_the_last_number_is_noticed_too(self) -> None:
        poller, updates = await self.watched()
        self.anew(6, self.uuid())
        await self.stops_until_told(poller, updates, "its revision 4 is of ")

    async def test_a_repository_that_only_moved_is_the_same(self) -> None:
        _, updates = await self.watched()
        moved = self.path.with_name("moved")
        self.path.rename(moved)
        self.path, self.url = moved, moved.as_uri()
        poller = await self.looking(updates, state=self.state)
        self.commit("trunk/later")
        await poller.poll()
        assert (updates.stored[3:], self.told) == (["5"], [])

    async def test_a_note_that_cannot_be_read_stops_nobody(self) -> None:
        for broken in (b"", b"\0", b"[]", b"{}", b'{"uuid": 1}', b"[" * 5000, b"\xff"):
            shutil.rmtree(self.path)
            for path in (self.state, self.note):
                path.unlink(missing_ok=True)
            run("svnadmin", "create", self.path)
            self.commit("trunk")
            _, updates = await self.watched()
            self.note.write_bytes(broken)
            self.commit("trunk/later")
            await (await self.looking(updates, state=self.state)).poll()
            assert updates.stored[3:] == ["5"], broken
