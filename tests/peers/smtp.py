"""A mail server for a test, on aiosmtpd: says where it listens, then one JSON line for each thing that happens.

What it does with a mail depends on the recipient's name:
  grey…     refuses it for now (450) the first time, as greylisting does, and takes it then
  late…     the same, but only after it has read the whole mail (451)
  refused…  refuses it for good (550)
  anybody else gets it.
"""

import asyncio
import email
import email.policy
import json
import sys

from aiosmtpd.smtp import SMTP


def say(what, **more):
    print(json.dumps({"what": what, **more}), flush=True)


class Handler:
    def __init__(self):
        self.seen = set()

    def first_time(self, kind, address):
        new = (kind, address) not in self.seen
        self.seen.add((kind, address))
        return new

    async def handle_RCPT(self, server, session, envelope, address, options):
        say("recipient", to=address)
        if address.startswith("refused"):
            return f"550 5.1.1 <{address}> unknown"
        if address.startswith("grey") and self.first_time("grey", address):
            return f"450 4.7.1 <{address}> greylisted, come back later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        (to,) = envelope.rcpt_tos
        if to.startswith("late") and self.first_time("late", to):
            say("read", to=to)
            return "451 4.3.0 try again"
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        say(
            "delivered",
            to=to,
            sender=envelope.mail_from,
            id=mail["message-id"],
            subject=mail["subject"],
            text=mail.get_body(("plain",)).get_content(),
            html=mail.get_body(("html",)).get_content(),
        )
        return "250 OK"


async def main():
    handler = Handler()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(handler, hostname="peer.example"), "127.0.0.1", int(sys.argv[1]))
    print(f"listening on {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


asyncio.run(main())
