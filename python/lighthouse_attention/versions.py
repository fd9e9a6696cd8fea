"""Which versions of transformers the adapter works with; pyproject.toml says the same, scripts/test_transformers.sh tests it."""

TRANSFORMERS = ("5.4", "6")  # from, and below


def release(version):
    """The numbers that a version begins with: (5, 4) of "5.4.0.dev0"."""
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in version.split("+")[0].split(".")[:2])


def transformers_problem(version):
    """Why lighthouse_attention.huggingface does not work with this version; None if it does."""
    oldest, beyond = TRANSFORMERS
    if release(oldest) <= release(version) < release(beyond):
        return None
    return (f"lighthouse_attention.huggingface: transformers is {version}; it must be {oldest} or newer, and older than {beyond}: "
            f"pip install 'transformers>={oldest},<{beyond}'")
