"""Receives every mail on port 1025 and serves it on port 8025 with a part of Mailpit's API. Standard library only."""

import asyncio
import json
from email import message_from_bytes
from email.utils import parseaddr

MAILS: list[bytes] = []


async def smtp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Handles one SMTP connection (RFC 5321)."""
    writer.write(b"220 catcher\r\n")
    while line := await reader.readline():
        verb = line[:4].upper()
        if verb == b"DATA":
            writer.write(b"354 send the mail\r\n")
            content = b""
            while (line := await reader.readline()) not in (b".\r\n", b""):
                content += line.removeprefix(b".") if line.startswith(b"..") else line
            if line:
                MAILS.append(content)
                writer.write(b"250 received\r\n")
        elif verb == b"QUIT":
            writer.write(b"221 bye\r\n")
            break
        else:
            writer.write(b"250 ok\r\n")
        await writer.drain()
    writer.close()


async def api(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers one request: the list of mails, or one mail as received."""
    path = (await reader.readline()).split()[1].decode().strip("/").split("/")
    while (await reader.readline()).strip():
        pass
    if path[-1] == "raw":
        body = MAILS[int(path[-2])]
    else:
        heads = [(number, message_from_bytes(mail)) for number, mail in enumerate(MAILS)]
        shown = [
            {"ID": str(number), "Subject": head["Subject"], "To": [{"Address": parseaddr(head["To"])[1]}]}
            for number, head in heads
        ]
        body = json.dumps({"total": len(MAILS), "messages": shown[::-1]}).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await writer.drain()
    writer.close()


async def main() -> None:
    """Serves forever."""
    await asyncio.start_server(smtp, "0.0.0.0", 1025)  # noqa: S104 - a container's port
    await (await asyncio.start_server(api, "0.0.0.0", 8025)).serve_forever()  # noqa: S104 - a container's port


asyncio.run(main())
