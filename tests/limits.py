"""The system's own limits, as tests meet them."""

import resource
from contextlib import contextmanager


@contextmanager
def no_file_above(size):
    """A disk that takes files of so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
