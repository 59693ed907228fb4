"""Carries a suite that speaks no TLS to a server that does: plain TCP in, TLS out, byte by byte.

    tls_relay.py LISTEN_PORT HOST:PORT CA.pem

Listens on loopback and prints `ready` when it does. Whatever one side sends is passed on as it comes, and an end is passed on as
an end, so that a test of a protocol above sees the server's own behaviour.
"""

import asyncio
import ssl
import sys

CHUNK = 1 << 16


async def carry(reader, writer):
    try:
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    except (OSError, ssl.SSLError):
        pass
    finally:
        writer.close()


async def main():
    port, target, authority = sys.argv[1:]
    host, target_port = target.rsplit(":", 1)
    context = ssl.create_default_context(cafile=authority)
    context.set_alpn_protocols(["http/1.1"])

    async def serve(reader, writer):
        try:
            server_reader, server_writer = await asyncio.open_connection(
                host, int(target_port), ssl=context, server_hostname="localhost"
            )
        except (OSError, ssl.SSLError) as error:
            print(f"no TLS: {error}", file=sys.stderr, flush=True)
            writer.close()
            return
        await asyncio.gather(carry(reader, server_writer), carry(server_reader, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", int(port)) as server:
        print("ready", flush=True)
        await server.serve_forever()


asyncio.run(main())
