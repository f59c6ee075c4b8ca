"""Threads that begin at the same moment."""

import threading


def together(*functions, timeout=60):
    """What the functions return, each called in a thread of its own; the first exception of any is raised here."""
    barrier, results = threading.Barrier(len(functions)), [None] * len(functions)
    errors = []

    def work(i):
        try:
            barrier.wait(timeout)
            results[i] = functions[i]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout)
    assert not any(thread.is_alive() for thread in threads), "a thread does not end"
    if errors:
        raise errors[0]
    return results
