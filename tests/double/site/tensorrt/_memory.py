"""What the double of pycuda, where it is loaded, knows about addresses and streams."""

import sys as _sys


def _driver():
    return _sys.modules.get("pycuda.driver")


def holds(address, nbytes):
    """Whether so many bytes may be touched there; True as well where nothing is known of the address."""
    if address == 0:
        return nbytes == 0
    driver = _driver()
    return driver is None or driver.double_holds(address, nbytes)


def submit(handle, work):
    """Do the work on a stream: at once, or where the double of pycuda waits for a synchronisation, then."""
    driver = _driver()
    if driver is None:
        work()
    else:
        driver.double_submit(handle, work)
