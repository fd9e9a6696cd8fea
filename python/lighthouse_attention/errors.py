"""How wrong arguments are said."""


def require(condition, message, *values):
    """Values that may be symbols of a traced graph, which it cannot print, come apart, for the {} of the message."""
    if not condition:
        raise ValueError(message.format(*values) if values else message)


def require_first_import(namespace):
    """For modules that register operators, which a process can do once: when one is reloaded, its globals have the NAMES already."""
    if "NAMES" in namespace:
        raise ImportError("lighthouse_attention: this process has the operators already, and they cannot be registered again; to reload "
                          f"{namespace['__name__']}, begin a new process (in a notebook: restart the kernel)")
