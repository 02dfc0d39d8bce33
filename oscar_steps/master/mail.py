"""Mail: `reports` says who is told what, Buildbot's MailNotifier delivers it."""

from __future__ import annotations

from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Any, ClassVar

from buildbot import interfaces, util
from buildbot.plugins import reporters
from buildbot.plugins import util as bb
from buildbot.reporters import utils
from twisted.internet import defer
from twisted.python import log
from zope.interface import implementer

from oscar_steps.master.operator_mail import MAIL_SERVICE
from oscar_steps.master.reports import note_of, recipients
from oscar_steps.master.steps import clean
from oscar_steps.site import Mail


@implementer(interfaces.IReportGenerator)
class VerdictReport(util.ComparableMixin):
    """One report per finished build, when `recipients` finds somebody to tell."""

    wanted_event_keys: ClassVar[list[tuple[Any, ...]]] = [("builds", None, "finished")]
    compare_attrs: ClassVar[tuple[str, ...]] = ("mail", "builders")

    def __init__(self, mail: Mail, builders: tuple[str, ...]) -> None:
        self.mail = mail
        self.builders = builders

    def check(self) -> None:
        """Nothing to check: the site was checked when it was read."""

    def generate_name(self) -> str:
        return type(self).__name__

    async def generate(self, master: Any, _reporter: Any, _key: Any, build: dict[str, Any]) -> dict[str, Any] | None:
        await utils.getDetailsForBuild(master, build, want_properties=True)
        if build["builder"]["name"] not in self.builders:
            return None
        note = await note_of(master, build)
        told = recipients(note, self.mail)
        if not told:
            return None
        return {
            "body": note.text,
            "subject": note.subject,
            "type": "plain",
            "results": build["results"],
            "builds": [build],
            "buildset": build["buildset"],
            "users": list(told),
            "patches": [],
            "logs": [],
            "extra_info": None,
        }


class OscarMail(reporters.MailNotifier):
    """Delivers the reports as plain mails that a person can read as they are (no base64)."""

    operator = ""

    def checkConfig(self, *, operator: str, **settings: Any) -> None:  # noqa: ARG002
        super().checkConfig(**settings)

    async def reconfigService(self, *, operator: str, **settings: Any) -> None:
        self.operator = operator
        await super().reconfigService(**settings)

    def tell_operator(self, subject: str, text: str) -> None:
        """Send one plain mail to the operator; returns at once."""
        sending = defer.ensureDeferred(self._tell_operator(subject, text))
        sending.addErrback(log.err, f"for the operator (the mail could not be sent): {subject}: {text}")

    async def _tell_operator(self, subject: str, text: str) -> None:
        mail = await self.createEmail({"body": text, "subject": f"[oscar-farm] {clean(subject)}"}, "", 0)
        mail["To"] = self.operator
        await self.sendMail(mail, [self.operator])

    async def createEmail(
        self,
        msgdict: dict[str, Any],
        _title: str,
        _results: int,
        builds: list[dict[str, Any]] | None = None,
        _patches: Any = None,
        _logs: Any = None,
    ) -> EmailMessage:
        body = msgdict["body"]
        text = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body)
        mail = EmailMessage()
        mail.set_content(text, cte="7bit" if text.isascii() else "quoted-printable")
        mail["Date"] = formatdate(localtime=True)
        mail["Message-ID"] = make_msgid(domain="oscar-farm")
        mail["Subject"] = str(msgdict["subject"])
        mail["From"] = self.fromaddr
        mail["Auto-Submitted"] = "auto-generated"
        if builds:
            mail["X-Oscar-Farm-Builder"] = builds[0]["builder"]["name"]
            mail["X-Oscar-Farm-Build"] = str(builds[0]["number"])
        return mail


def oscar_mail(mail: Mail, builders: tuple[str, ...]) -> OscarMail:
    """The farm's mail reporter."""
    return OscarMail(
        name=MAIL_SERVICE,
        operator=mail.operator,
        fromaddr=mail.sender,
        relayhost=mail.relay,
        smtpPort=mail.port,
        useTls=mail.tls,
        smtpUser=mail.user or None,
        smtpPassword=bb.Secret("mail-password") if mail.user else None,
        generators=[VerdictReport(mail, builders), reporters.WorkerMissingGenerator(workers="all")],
    )
