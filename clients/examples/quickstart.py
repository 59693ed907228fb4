import asyncio, json, sys, uuid, websockets

async def main(url, token, friend):
    async with websockets.connect(url, subprotocols=["antiphon.v1.json"]) as socket:
        async def ask(id, **request):
            await socket.send(json.dumps({"id": id, **request}))
            while (frame := json.loads(await socket.recv())).get("id") != id:
                print("pushed:", frame)
            return frame
        print(await ask(1, connect={"token": token, "device": "quickstart-python"}))
        conversation = (await ask(2, create={"direct": friend}))["create"]["conversation"]
        message = {"client_message_id": str(uuid.uuid4()), "text": "hello from Python"}
        print(await ask(3, send={"conversation": conversation, **message}))  # durable once answered
        print(await ask(4, history={"conversation": conversation, "limit": 10}))

asyncio.run(main(*sys.argv[1:]))
