class Values:
    """For fastpath.lpm: Python sees no more of it than that it exists."""
