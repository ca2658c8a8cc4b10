"""What a JSON schema cannot say of a request: so that a valid one is one that a node takes."""

import os
import time
from urllib.parse import quote, unquote

import schemathesis
from schemathesis import GenerationMode


def fresh_id():
    """A UUIDv7 of now, since the time in it counts."""
    milliseconds = int(time.time() * 1000).to_bytes(6, "big")
    rest = bytearray(os.urandom(10))
    rest[0] = 0x70 | rest[0] & 0x0F
    rest[2] = 0x80 | rest[2] & 0x3F
    text = (milliseconds + bytes(rest)).hex()
    return "-".join([text[:8], text[8:12], text[12:16], text[16:20], text[20:]])


def mended(name, value):
    if name in ("request_id", "client_msg_id") and isinstance(value, str):
        return fresh_id()
    # A direct room is of two different users, the lesser one first.
    if name in ("room", "after") and isinstance(value, str) and unquote(value).startswith("dm:"):
        a, b = sorted(unquote(value).split(":")[1:])
        room = f"dm:{a}:{b}" if a != b else "dm:a:b"
        return quote(room, safe="") if "%" in value else room
    # To JSON Schema 1.0 is an integer; to a node it is none.
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.meta is None or case.meta.generation.mode != GenerationMode.POSITIVE:
        return
    for part in (case.path_parameters, case.query, case.body):
        if isinstance(part, dict):
            for name in list(part):
                part[name] = mended(name, part[name])
    query, body = case.query, case.body
    if isinstance(query, dict) and "wait" in query:
        query["wait"] = "10ms"  # not to wait here
        query["after"] = "0"  # for what it would wait
    if isinstance(query, dict) and "after" in query:
        query.pop("before", None)  # one of the two
    if isinstance(query, dict) and case.operation.path.split("/")[-1] in ("events", "{seq}"):
        for name in ("after", "before"):
            if name in query:
                query[name] = "0"  # at most the room's head
    if isinstance(body, dict) and case.operation.label == "PATCH /v1/users/{user}":
        if body.get("disabled") is None:
            body["status"] = body.get("status") or "here"  # something is to change
        else:
            body.pop("display_name", None)  # not together
            body.pop("status", None)
    if isinstance(body, dict) and case.operation.label == "POST /v1/rooms":
        # Direct rooms, and they alone, have such ids.
        if body["room"].startswith("dm:"):
            body.pop("kind", None)
        elif body.get("kind") == "direct":
            body["kind"] = "group"
