"""The master at a server that wants to know who asks: its poller, its builds, and what the operator reads."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.trial import unittest

from oscar_steps.errors import HostError
from oscar_steps.master.watch import looks
from oscar_steps.master.watch.exact import Asked, exact_source
from oscar_steps.master.watch.svn import FarmPoller
from oscar_steps.site import load_site
from tests.unit.apache import PASSPHRASE, PASSWORD, USER, Apache
from tests.unit.master.watch.support import Alone, BranchSplitter, Fake, FakeUpdates
from tests.unit.svn_server import Repository


class AtApache(unittest.TestCase):  # type: ignore[misc]
    """Against Apache, with a certificate of an authority that nobody knows."""

    apache: Apache

    @classmethod
    def setUpClass(cls) -> None:
        scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(scratch.cleanup)
        repository = Repository(Path(scratch.name) / "oscar")
        repository.put({"trunk/install_cluster": "x\n", "common/f": "1\n"})
        repository.externals("trunk", "^/common lib")
        repository.commit()
        cls.apache = Apache(repository.place)
        cls.addClassCleanup(cls.apache.close)

    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)
        self.mails: list[str] = []

    def site(self, way: str, settings: str = "", **secrets: str) -> Any:
        """The site that watches one of Apache's addresses."""
        settings = settings.format(ca=self.apache.authorities, p12=self.apache.client)
        text = f'[repository]\nurl = "{self.apache.url[way]}"\n{settings}\n[[worker]]\nname = "w"\n'
        (self.folder / "farm.toml").write_text(text)
        (self.folder / "secrets").mkdir(exist_ok=True)
        for name, value in secrets.items():
            path = self.folder / "secrets" / f"svn-{name}"
            path.write_text(f"{value}\n")
            path.chmod(0o600)
        return load_site(self.folder / "farm.toml")

    async def poller(self, site: Any) -> FarmPoller:
        """As the master starts it, after three looks."""
        updates = FakeUpdates("")
        poller = Alone(site.repository.url, name="svn")
        poller.master = Fake(
            reactor=reactor, data=Fake(updates=updates, get=updates.get), service_manager=Fake(namedServices={})
        )
        self.patch(looks, "notify_operator", lambda _master, subject, text: self.mails.append(subject + text))
        settings: dict[str, Any] = {"split_file": BranchSplitter(site.repository), "project": "oscar"}
        await poller.reconfigService(site.repository.url, name="svn", logins=site.svn_logins(self.folder), **settings)
        for _ in range(3):
            await poller.poll()
        self.flushLoggedErrors(HostError)
        return poller

    async def test_each_trouble_is_one_sentence_that_says_what_to_do(self) -> None:
        ca, user = 'authorities = "{ca}"\n', f'user = "{USER}"\n'
        for way, settings, secrets, said, advice in (
            ("open", "", {}, "issuer is not trusted", "`authorities`"),
            ("expired", ca, {}, "certificate has expired", "renew the server's certificate"),
            ("other", ca, {}, "different hostname", "the name that the server's certificate is for"),
            ("good", ca, {}, "E215004", "`user` and its password"),
            ("good", ca + user, {"password": "wrong"}, "E215004", "`user` and its password"),
            ("client", ca, {}, "SSL communication", "`certificate`"),
        ):
            poller = await self.poller(self.site(way, settings, **secrets))
            assert said in poller.trouble and advice in poller.trouble, (way, poller.trouble)
            assert "\n" not in poller.trouble
            assert poller.trouble in self.mails[-1]

    async def test_with_its_login_the_master_reads_the_repository_and_shows_no_secret(self) -> None:
        certificate = 'authorities = "{ca}"\ncertificate = "{p12}"\n'
        for way, settings, secrets in (
            ("good", f'authorities = "{{ca}}"\nuser = "{USER}"\n', {"password": PASSWORD}),
            ("client", certificate, {"certificate": PASSPHRASE}),
        ):
            site = self.site(way, settings, **secrets)
            site.check_svn_login()
            poller = await self.poller(site)
            assert (poller.trouble, poller.last_change) == ("", 2)
            asked = Asked("", "trunk", "", folder=self.folder)
            source = await exact_source(reactor, site, asked)
            assert (source.revision, [each.path for each in source.externals]) == ("2", ["lib"])
            assert not any(secret in str(vars(poller)) + site.model_dump_json() for secret in (PASSWORD, PASSPHRASE))
            settings_folder = self.folder / "svn-settings"
            assert settings_folder.stat().st_mode & 0o077 == 0

    async def test_a_changed_password_counts_at_the_next_look(self) -> None:
        site = self.site("good", f'authorities = "{{ca}}"\nuser = "{USER}"\n', password="wrong")
        poller = await self.poller(site)
        assert "E215004" in poller.trouble
        self.site("good", password=PASSWORD)
        await poller.poll()
        assert poller.trouble == ""
