"""A relay for the tests: a real SMTP server (aiosmtpd) that does what a recipient's name asks of it.

Its first line of output is {"port": N}; after it come {"event": "connected"} for each connection and {"event": "mail", ...} for each
mail it took. Options are one argument of JSON: tls (none, starttls, implicit), cert and key, user and password, mechanisms that
it does not offer, sender (what MAIL FROM is answered with), refusals ({recipient: [what RCPT TO is answered with, the first time, ...]};
behind the last one the recipient is taken), connections (as many are let in at once; others are told 421, and
{"event": "turned_away"} is printed), takes_ms (how long a mail takes).

Recipients: rcpt-550-… and data-554-… are refused with that code where they say; slow-… is answered after ten minutes.
"""

import asyncio
import email
import email.policy
import json
import logging
import ssl
import sys
import warnings

from aiosmtpd.smtp import AuthResult, SMTP

OPTIONS = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
SLOW_S = 600
# What aiosmtpd thinks of users without STARTTLS is right, and no news to a test.
warnings.simplefilter("ignore")
logging.disable()


def say(**fields):
    print(json.dumps(fields), flush=True)


def refusal(address, step):
    """What a recipient's name asks to be said at this step."""
    words = address.split("@")[0].split("-")
    if len(words) > 1 and words[0] == step:
        return f"{words[1]} {words[2] if len(words) > 2 else '5.0.0'} as asked for"
    return None


def read(content):
    """A mail as a program reads it that we did not write."""
    message = email.message_from_bytes(content, policy=email.policy.default)
    parts = [part for part in message.walk() if not part.is_multipart()]
    return {
        "headers": [[name, str(value)] for name, value in message.items()],
        "type": message.get_content_type(),
        "parts": [{"type": part.get_content_type(), "text": part.get_content().replace("\r\n", "\n")} for part in parts],
        "longest": max(len(line) for line in content.split(b"\r\n")),
        "ascii": content.isascii(),
    }


class Handler:
    async def handle_MAIL(self, server, session, envelope, address, options):
        if OPTIONS.get("sender"):
            return OPTIONS["sender"]
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 ok"

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("slow"):
            await asyncio.sleep(SLOW_S)
        refusals = OPTIONS.get("refusals", {}).get(address, [])
        told = refusals.pop(0) if refusals else refusal(address, "rcpt")
        if told:
            return told
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server, session, envelope):
        told = refusal(envelope.rcpt_tos[0], "data")
        if told:
            return told
        await asyncio.sleep(OPTIONS.get("takes_ms", 0) / 1000)
        say(
            event="mail",
            sender=envelope.mail_from,
            recipients=envelope.rcpt_tos,
            encrypted=session.ssl is not None or OPTIONS.get("tls") == "implicit",
            user=session.auth_data.login.decode() if session.authenticated else None,
            **read(envelope.content),
        )
        return "250 2.0.0 taken"


class Relay(SMTP):
    OPEN = set()

    def connection_made(self, transport):
        # STARTTLS makes the connection anew, on the same socket.
        if self.transport is None:
            say(event="connected")
        super().connection_made(transport)

    def connection_lost(self, error):
        self.OPEN.discard(self)
        super().connection_lost(error)


class Away(asyncio.Protocol):
    """What a client meets that is one too many."""

    def connection_made(self, transport):
        say(event="turned_away")
        transport.write(b"421 4.7.0 relay.test too many connections from you\r\n")
        transport.close()


def signs_in(server, session, envelope, mechanism, data):
    wanted = (OPTIONS["user"].encode(), OPTIONS["password"].encode())
    return AuthResult(success=(data.login, data.password) == wanted, auth_data=data, handled=False)


async def main():
    tls = OPTIONS.get("tls", "none")
    context = None
    if tls != "none":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(OPTIONS["cert"], OPTIONS["key"])
    has_users = "user" in OPTIONS

    def relay():
        if len(Relay.OPEN) >= OPTIONS.get("connections", sys.maxsize):
            return Away()
        one = Relay(
            Handler(),
            hostname="relay.test",
            tls_context=context if tls == "starttls" else None,
            require_starttls=tls == "starttls",
            authenticator=signs_in if has_users else None,
            auth_required=has_users,
            auth_require_tls=tls == "starttls",
            auth_exclude_mechanism=OPTIONS.get("without", []),
            command_call_limit=None,
        )
        Relay.OPEN.add(one)
        return one

    server = await asyncio.get_running_loop().create_server(
        relay, "127.0.0.1", OPTIONS.get("port", 0), ssl=context if tls == "implicit" else None
    )
    say(port=server.sockets[0].getsockname()[1])
    await server.serve_forever()


try:
    asyncio.run(main())
except (BrokenPipeError, KeyboardInterrupt):
    pass
