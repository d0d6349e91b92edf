"""Alerts by mail, over SMTP."""

import smtplib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from hashlib import sha256
from typing import Literal

from lodestar.adapters.alerts.wording import said_of
from lodestar.interface.alerting import Message, UndeliveredError

__all__ = ["Mail", "MailServer"]

PERMANENT = 500
MOST_NOTICES = 100


@dataclass(frozen=True)
class MailServer:
    """Where mails are handed in; `login` is a user and a password."""

    host: str
    port: int
    security: Literal["starttls", "tls", "none"]
    login: tuple[str, str] | None = None
    trusted: ssl.SSLContext | None = None


class Mail:
    """One sender and some recipients."""

    def __init__(self, server: MailServer, sender: str, to: Sequence[str]) -> None:
        self._server = server
        self._sender = sender
        self._to = tuple(to)

    def send(self, message: Message, *, seconds: float) -> str:
        """Hand it in; recipients that are refused, while others are taken, are what is odd."""
        mail = _mail(message, self._sender, self._to)
        try:
            with self._connected(seconds) as smtp:
                if self._server.security == "starttls":
                    smtp.starttls(context=self._trusted())
                if self._server.login is not None:
                    smtp.login(*self._server.login)
                refused = smtp.send_message(mail)
        except smtplib.SMTPException as error:
            raise _refused(error, seconds) from None  # its text may quote the login
        except ssl.SSLCertVerificationError as error:
            raise UndeliveredError("the certificate is not trusted", again=False) from error
        except TimeoutError as error:
            raise UndeliveredError(f"no answer within {seconds:.3g} s", again=True) from error
        except ConnectionRefusedError as error:
            raise UndeliveredError("the connection was refused", again=True) from error
        except OSError as error:
            raise UndeliveredError("the connection broke", again=True) from error
        return f"{len(refused)} of {len(self._to)} recipients were refused" if refused else ""

    def _connected(self, seconds: float) -> smtplib.SMTP:
        # Its own way to find this machine's name may ask a name server, for as long as that takes.
        own = self._sender.rpartition("@")[2]
        server = self._server
        if server.security == "tls":
            return smtplib.SMTP_SSL(
                server.host, server.port, own, timeout=seconds, context=self._trusted()
            )
        return smtplib.SMTP(server.host, server.port, own, timeout=seconds)

    def _trusted(self) -> ssl.SSLContext:
        return self._server.trusted or ssl.create_default_context()


def _refused(error: smtplib.SMTPException, seconds: float) -> UndeliveredError:
    if isinstance(error, smtplib.SMTPAuthenticationError):
        again = error.smtp_code < PERMANENT
        return UndeliveredError(f"the login was refused (SMTP {error.smtp_code})", again=again)
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        codes = [code for code, _ in error.recipients.values()]
        again = all(code < PERMANENT for code in codes)
        return UndeliveredError(f"all recipients were refused (SMTP {max(codes)})", again=again)
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return UndeliveredError("the server does not offer what the config asks for", again=False)
    if isinstance(error, smtplib.SMTPResponseException):
        again = error.smtp_code < PERMANENT
        return UndeliveredError(f"the mail was refused (SMTP {error.smtp_code})", again=again)
    late = isinstance(error.__context__, TimeoutError)
    words = f"no answer within {seconds:.3g} s" if late else "the server broke off"
    return UndeliveredError(words, again=True)


def _mail(message: Message, sender: str, to: Sequence[str]) -> EmailMessage:
    mail = EmailMessage()
    mail["Subject"] = "".join(char for char in message.title if char.isprintable())[:200]
    mail["From"], mail["To"] = sender, ", ".join(to)
    mail["Date"] = message.sent_at
    # The same for each attempt, so that a mailbox can tell a repeated one.
    about = "\n".join(f"{one.id} {one.status}" for one in message.notices)
    digest = sha256(f"{about}\n{message.sent_at.isoformat()}".encode()).hexdigest()[:32]
    mail["Message-ID"] = f"<{digest}@{sender.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    shown = message.notices[:MOST_NOTICES]
    parts = [f"{one.status}: {one.rule} ({one.severity})\n{said_of(one)}\n" for one in shown]
    if rest := len(message.notices) - len(shown):
        parts.append(f"and {rest:,} more: lodestar alerts list\n")
    mail.set_content("\n".join(parts))
    return mail
