"""Mail: `facts` decides who gets which mail, `spool` keeps each until the relay has taken it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import Any, ClassVar

from buildbot import interfaces, util
from buildbot.data import resultspec
from buildbot.plugins import reporters
from buildbot.process.results import RETRY, SKIPPED
from buildbot.reporters import utils
from twisted.internet import defer, reactor
from twisted.python import log
from zope.interface import implementer

from oscar_steps.master.operator_mail import MAIL_SERVICE, notify_operator
from oscar_steps.master.reports.directory import Directory
from oscar_steps.master.reports.facts import bad_logins, note_of, people_of, recipients
from oscar_steps.master.reports.relay import Relay, Reply
from oscar_steps.master.reports.spool import Letter, Spool, new_name, report_name
from oscar_steps.master.schedules.names import BISECT
from oscar_steps.site import Mail
from oscar_steps.textio import one_line
from oscar_steps.verdict import Outcome

_LONGEST_LINE = 900
_LONGEST_SUBJECT = 300
_LOOK_EVERY = 300.0
_MOST_NAMED = 30


@dataclass(frozen=True)
class Password:
    """Of our account at the relay. Buildbot prints a service's settings into its log when one goes wrong: not this.

    Not util.Secret: Buildbot reads such files only once, and sees no difference where a password has changed.
    """

    text: str = field(repr=False)


@implementer(interfaces.IReportGenerator)
class VerdictReport(util.ComparableMixin):
    """One report per finished build that has recipients."""

    wanted_event_keys: ClassVar[list[tuple[Any, ...]]] = [("builds", None, "finished")]
    compare_attrs: ClassVar[tuple[str, ...]] = ("mail", "builders")

    def __init__(self, mail: Mail, builders: tuple[str, ...], ldap_password: str = "") -> None:
        self.mail = mail
        self.directory = Directory(mail, ldap_password)
        self.builders = builders

    def check(self) -> None:
        """Nothing to check: the site was checked when it was read."""

    def generate_name(self) -> str:
        return type(self).__name__

    async def generate(self, master: Any, reporter: Any, _key: Any, build: dict[str, Any]) -> dict[str, Any] | None:
        await utils.getDetailsForBuild(master, build, want_properties=True)
        if build["builder"]["name"] not in self.builders:
            reporter.no_report_needed(build)
            return None
        if build["results"] == SKIPPED or BISECT in build["properties"]:  # a search ends with one mail
            reporter.no_report_needed(build)
            return None
        note = await note_of(master, build)
        if note.second is not None and note.second.waits:
            return None  # `look_again` finds it later
        if note.repeats:
            # Whatever it is, the red before it need not wait any more. Its mail has this result, too.
            reporter.look_again(0.0)
            if note.verdict.outcome is not Outcome.INFRASTRUCTURE:
                reporter.no_report_needed(build)
                return None
        book = await self.directory.book(people_of(note, self.mail))
        reporter.tell_of_bad_logins(dict(bad_logins(note, self.mail, book)))
        addresses = recipients(note, self.mail, book)
        if not addresses:
            reporter.no_report_needed(build)
            return None
        return {
            "body": note.text,
            "subject": note.subject,
            "type": "plain",
            "results": build["results"],
            "builds": [build],
            "buildset": build["buildset"],
            "users": list(addresses),
            "patches": [],
            "logs": [],
            "extra_info": None,
        }


class OscarMail(reporters.MailNotifier):
    """Spools the farm's mails as plain text that a person can read as it is (no base64), and sends them from there."""

    spool: Spool | None = None
    operator = ""
    password: Password | None = None
    _notified: set[str]
    _looking: defer.DeferredLock
    _next_look: Any = None

    def checkConfig(self, *, operator: str, password: Password | None, **settings: Any) -> None:  # noqa: ARG002
        super().checkConfig(**settings)

    async def reconfigService(self, *, operator: str, password: Password | None, **settings: Any) -> None:
        self.operator, self.password = operator, password
        await super().reconfigService(**settings)
        if self.spool is None:
            self._notified = set()
            self.spool = Spool(Path(self.master.basedir) / "spool", self._send, reactor, self._refused)
            self.spool.accepted = self._notified.discard
            self._looking = defer.DeferredLock()
            self._look()
        self.spool.wake()

    async def stopService(self) -> None:
        await super().stopService()
        if self._next_look is not None and self._next_look.active():
            self._next_look.cancel()
        if self.spool:
            spool, self.spool = self.spool, None
            await spool.stop()

    async def _send(self, sender: str, recipients: Sequence[str], content: bytes) -> dict[str, Reply]:
        password = self.password.text if self.password else ""
        relay = Relay(self.relayhost, self.smtpPort, self.useTls, self.smtpUser or "", password)
        return await relay.send(sender, recipients, content)

    def notify_operator(self, subject: str, text: str) -> bool:
        """Spool one plain mail to the operator; whether that could be done."""
        return self.notify(subject, text, (), operator=True)

    def notify(self, subject: str, text: str, addresses: Sequence[str], *, operator: bool, name: str = "") -> bool:
        """The same to these addresses, and to the operator if so wished. What has a `name` is sent once."""
        if self.spool is None:
            return False
        people = [*dict.fromkeys((*addresses, *([self.operator] if operator else [])))]
        if not (name and self.spool.has(name)):
            plain = self._plain(f"[oscar-farm] {one_line(subject)}", text)
            self.spool.add(self._letter(name or new_name(), plain, people, once=bool(name)))
        return True

    async def send_to_logins(
        self, name: str, subject: str, text: str, logins: Sequence[str], *, developers: bool = False
    ) -> bool:
        """`notify` these people, where they have addresses, and the operator. `developers`: and their list."""
        reports = next(each for each in self.generators if isinstance(each, VerdictReport))
        book = await reports.directory.book(set(logins))
        people = [address for login in logins if (address := book.address(login))]
        people += [reports.mail.developers] if developers and reports.mail.developers else []
        return self.notify(subject, text, people, operator=True, name=name)

    def notify_operator_once(self, about: str, subject: str, text: str) -> None:
        """The same, unless this master has sent it already."""
        if about not in self._notified:
            self._notified.add(about)
            notify_operator(self.master, subject, text)

    def tell_of_bad_logins(self, faults: Mapping[str, str]) -> None:
        """One mail to the operator about those of whom this master has told nothing yet."""
        new = [login for login in faults if login not in self._notified]
        if not new:
            return
        self._notified.update(new)
        lines = [f"{faults[login]} (the login {login[:200]!a})" for login in new[:_MOST_NAMED]]
        lines += [f"... and {more} more"] if (more := len(new) - len(lines)) else []
        text = "\n".join(lines) + "\n\nAn address for a login in [mail.people] of farm.toml comes first.\n"
        how_many = "a committer has" if len(new) == 1 else f"{len(new)} committers have"
        notify_operator(self.master, f"{how_many} no usable mail address", text)

    def _refused(self, letter: Letter, recipient: str, reason: str) -> None:
        if recipient == self.operator:
            if self.spool:
                self.spool.trouble = f"mail to the operator {recipient} is refused: {reason}"
            return  # a mail about it would be refused as well
        about = f"The mail relay {self.relayhost} gave this answer for {recipient}: {reason}"
        text = f"{about}\n\nThe mail '{one_line(letter.subject)}' was not delivered, and will not be sent again.\n"
        self.notify_operator_once(recipient, f"the mail relay refuses mail to {recipient}", text)

    async def sendMessage(self, reports: list[dict[str, Any]]) -> None:
        for report in reports:
            build = (report["builds"] or [None])[0]
            body = report["body"]
            text = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body)
            self._spool(self._plain(str(report["subject"]), text, build), list(report["users"]), build)

    def _spool(self, mail: EmailMessage, recipients: list[str], build: dict[str, Any] | None) -> None:
        """A build's report is made once: nothing else runs between the question and the note that it was made."""
        if self.spool is None:
            return
        if build is None:
            self.spool.add(self._letter(new_name(), mail, recipients))
            return
        number, name = build["buildid"], report_name(build["buildid"])
        if number not in self.spool.reported:
            if not self.spool.has(name):
                self.spool.add(self._letter(name, mail, recipients, report=True))
            self.spool.reported.add(number)

    def no_report_needed(self, build: dict[str, Any]) -> None:
        """Note that nobody gets a mail about this build."""
        if self.spool is not None and build["buildid"] not in self.spool.reported:
            self.spool.reported.add(build["buildid"])

    def look_again(self, seconds: float) -> None:
        """Look by then, at the latest, for finished builds without a report."""
        waits = self._next_look is not None and self._next_look.active()
        if waits and self._next_look.getTime() <= reactor.seconds() + seconds:
            return
        if waits:
            self._next_look.cancel()
        self._next_look = reactor.callLater(seconds, self._look)

    def _look(self) -> None:
        if self.spool is None:
            return
        looked = self._looking.run(lambda spool: defer.ensureDeferred(self._catch_up(spool)), self.spool)
        looked.addErrback(log.err, "reports of builds that have none yet")
        looked.addBoth(lambda _: self.look_again(_LOOK_EVERY) if self.spool is not None else None)

    async def _catch_up(self, spool: Spool) -> None:
        """Report the builds that ended when a master was killed before it could, and reds that need not wait."""
        later = [resultspec.Filter("buildid", "gt", [spool.reported.upto])]
        builds = await self.master.data.get(("builds",), filters=later)
        last = max((build["buildid"] for build in builds), default=0)
        if not spool.reported.known:
            spool.reported.begin(min((b["buildid"] for b in builds if not b["complete"]), default=last + 1) - 1)
        for build in sorted(builds, key=lambda build: build["buildid"]):
            if build["complete"] and build["buildid"] not in spool.reported:
                if build["results"] == RETRY:  # its request is tried again, and reported then
                    self.no_report_needed(build)
                else:
                    await self._got_event(("builds", str(build["buildid"]), "finished"), build)

    def _letter(self, name: str, mail: EmailMessage, recipients: list[str], **what: bool) -> Letter:
        mail["To"] = ", ".join(recipients)
        subject = str(mail["Subject"])
        return Letter(name, self.fromaddr, tuple(recipients), mail.as_bytes(), subject=subject, **what)

    def _plain(self, subject: str, text: str, build: dict[str, Any] | None = None) -> EmailMessage:
        text = text.encode("utf-8", "replace").decode("utf-8").rstrip("\n") + "\n\n"
        simple = text.isascii() and max(map(len, text.split("\n"))) < _LONGEST_LINE
        mail = EmailMessage()
        mail.set_content(text, cte="7bit" if simple else "quoted-printable")
        mail["Date"] = formatdate(localtime=True)
        mail["Message-ID"] = make_msgid(domain="oscar-farm")
        mail["Subject"] = one_line(subject, _LONGEST_SUBJECT)
        mail["From"] = self.fromaddr
        mail["Auto-Submitted"] = "auto-generated"
        if build is not None:
            mail["X-Oscar-Farm-Builder"] = build["builder"]["name"]
            mail["X-Oscar-Farm-Build"] = str(build["number"])
        return mail


def oscar_mail(
    mail: Mail, builders: tuple[str, ...], password: str | None = None, ldap_password: str = ""
) -> OscarMail:
    """The farm's mail reporter; `password` is that of the site's account at the relay, where it has one."""
    return OscarMail(
        name=MAIL_SERVICE,
        operator=mail.operator,
        fromaddr=mail.sender,
        relayhost=mail.relay,
        smtpPort=mail.port,
        useTls=mail.tls,
        smtpUser=mail.user or None,
        password=None if password is None else Password(password),
        generators=[VerdictReport(mail, builders, ldap_password), reporters.WorkerMissingGenerator(workers="all")],
    )
