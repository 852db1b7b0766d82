"""A lock that is waited for."""

import threading

from evor.runtime.locks import waited_for


def test_who_comes_second_waits_and_then_holds_it(tmp_path):
    order, begun = [], threading.Event()

    def second():
        begun.set()
        with waited_for(tmp_path / ".lock"):
            order.append("second")

    with waited_for(tmp_path / ".lock"):
        other = threading.Thread(target=second)
        other.start()
        begun.wait()
        order.append("first")
    other.join()
    assert order == ["first", "second"]
    assert not (tmp_path / ".lock").exists()
