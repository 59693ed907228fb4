"""Runs kosoku, with what its version 0.1.0 lacks for sections 12 and 13.

It hands every message to a case as a `str` of one character a byte, as Python 2 had it; those two sections' cases take
bytes. Without this each of them ends with an error of its own, whatever the server does.
"""

from kosoku import _caseindex, _cli

_caseindex.initialize_shims()

import case12_x_x  # noqa: E402


def takes_bytes(original):
    def on_message(self, message, binary):
        if isinstance(message, str):
            message = message.encode("latin-1")
        return original(self, message, binary)

    return on_message


for name in ("Case12_X_X", "Case13_X_X"):
    for case in getattr(case12_x_x, name):
        case.onMessage = takes_bytes(case.onMessage)

_cli.main()
