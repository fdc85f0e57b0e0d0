"""Errors that are the user's to mend: one line, no traceback."""


class UserError(Exception):
    """What the user asked for cannot be done; the message says why and what can.

    The command line prints it as one line, `papyrax: error: message`, and exits with status 2.
    """
