"""What the suite makes of a description that its author did not mean."""

import schemathesis


def written(value, is_free=False):
    """What a writer of JSON writes: JSON Schema allows 7.0 for a whole number, which the protocol refuses, and numbers beyond any double."""
    if isinstance(value, dict):
        # What stands under these is the application's, whatever it is.
        return {name: written(part, is_free or name in ("json", "value")) for name, part in value.items()}
    if isinstance(value, list):
        return [written(part, is_free) for part in value]
    if isinstance(value, (int, float)) and abs(value) > 1e300:
        return 7
    return int(value) if isinstance(value, float) and value.is_integer() and not is_free else value


@schemathesis.hook
def map_body(context, body):
    return written(body)


@schemathesis.hook
def filter_path_parameters(context, path_parameters):
    """Of a user named `a%ffb` the suite decodes what it takes for an escape, and calls for another user, of a name that there cannot be."""
    return not any("%EF%BF%BD" in str(value) for value in (path_parameters or {}).values())
