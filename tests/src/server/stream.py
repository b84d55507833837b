"""A stream of NATS JetStream, by a client that is not ours: stream.py make|read|ids URL CA_FILE. `read` prints each message: its
`Nats-Msg-Id`, a blank, and its body; `ids` the first alone."""
import asyncio
import ssl
import sys

import nats
from nats.js.api import StreamConfig

WHAT, URL, CA = sys.argv[1:4]


async def main():
    client = await nats.connect(
        URL,
        user="reader",
        password="of-the-test",
        tls=ssl.create_default_context(cafile=CA),
        allow_reconnect=False,
    )
    stream = client.jetstream()
    if WHAT == "make":
        # What comes again after an hour of outage is known for what it is.
        await stream.add_stream(
            StreamConfig(name="KEYTRAIL", subjects=["keytrail.>"], duplicate_window=3600)
        )
    else:
        state = (await stream.stream_info("KEYTRAIL")).state
        messages = await stream.subscribe("keytrail.>", ordered_consumer=True)
        for _ in range(state.messages):
            message = await messages.next_msg(timeout=10)
            print(message.headers["Nats-Msg-Id"], message.data.decode() if WHAT == "read" else "")
    await client.close()


asyncio.run(main())
