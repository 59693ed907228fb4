"""Edits, reacts to, pins, answers and deletes a message of its own, and checks what history then says of it."""
import asyncio, json, sys, uuid, websockets

async def main(url, token, friend):
    async with websockets.connect(url, subprotocols=["antiphon.v1.json"]) as socket:
        states = {}
        async def ask(id, **request):
            await socket.send(json.dumps({"id": id, **request}))
            while (frame := json.loads(await socket.recv())).get("id") != id:
                # What became of messages comes right before the page that has them.
                states.update({of["sequence"]: of for of in frame.get("states", {}).get("states", [])})
            return frame
        await ask(1, connect={"token": token, "device": "changes-python"})
        conversation = (await ask(2, create={"direct": friend}))["create"]["conversation"]
        def change(**fields):
            return {"conversation": conversation, "client_message_id": str(uuid.uuid4()), **fields}
        async def message(id):
            page = (await ask(id, history={"conversation": conversation, "limit": 10}))["history"]["entries"]
            return next(entry for entry in page if entry["sequence"] == target)
        target = (await ask(3, send=change(text="hello frmo Python")))["send"]["sequence"]
        edit = change(target=target, text="hello from Python")
        first = (await ask(4, edit=edit))["edit"]
        again = (await ask(5, edit=edit))["edit"]
        assert again == {**first, "duplicate": True}, again
        await ask(6, react=change(target=target, reaction="👍", on=True))
        await ask(7, pin=change(target=target, on=True))
        entry = await message(8)
        assert entry["text"] == "hello from Python", entry
        state = states[target]
        assert state["edited"]["sequence"] == first["sequence"] and state["pinned"], state
        assert state["reactions"] == [{"reaction": "👍", "count": 1, "mine": True}], state
        who = (await ask(9, reactions={"conversation": conversation, "target": target}))["reactions"]["reactions"]
        assert [of["reactions"] for of in who] == [["👍"]], who
        assert target in (await ask(10, pins={"conversation": conversation}))["pins"]["pins"]
        reply = change(text="see above", json={"bars": [1, 2]}, reply_to=target, thread=target, mentions=[friend])
        await ask(14, send=reply)
        await message(15)
        assert states[target]["replies"] == 1, states[target]
        print("before:", entry["text"], states[target])
        await ask(11, delete=change(target=target))
        entry = await message(12)
        assert "text" not in entry and states[target] == {"sequence": target, "deleted": True}, (entry, states[target])
        refused = await ask(13, edit=change(target=target, text="too late"))
        assert refused["error"]["code"] == "deleted", refused
        print("deleted:", states[target])

asyncio.run(main(*sys.argv[1:]))
