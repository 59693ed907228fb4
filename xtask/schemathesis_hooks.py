"""What JSON Schema allows and no writer of JSON does: 7.0 for a whole number. The protocol refuses it, and a description cannot."""

import schemathesis


def whole(value):
    if isinstance(value, dict):
        # What stands under `json` is the application's, whatever it is.
        return {name: part if name == "json" else whole(part) for name, part in value.items()}
    if isinstance(value, list):
        return [whole(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@schemathesis.hook
def map_body(context, body):
    return whole(body)
