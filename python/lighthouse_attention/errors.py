"""How wrong arguments are said."""


def require(condition, message, *values):
    """Values that may be symbols of a traced graph, which it cannot print, come apart, for the {} of the message."""
    if not condition:
        raise ValueError(message.format(*values) if values else message)
