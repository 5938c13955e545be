"""Messages on a pipe: all that are there come together, whole, and none after one that was cut."""

import multiprocessing
import os
import threading

import kernels
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shmcompute.backends.processes.protocol import Lost, Pipe
from shmcompute.backends.processes.protocol import pipe as pipes


@pytest.fixture
def ends():
    """A pipe, and the connection at its other end."""
    ours, theirs = multiprocessing.Pipe()
    pipe = Pipe(ours, parent=True)
    ours.close()
    yield pipe, theirs
    pipe.close()
    theirs.close()


def _framed(*values):
    """The bytes of these messages, as multiprocessing writes them."""
    reader, writer = multiprocessing.Pipe(duplex=False)

    def write():  # in a thread, for a pipe may not hold all
        for value in values:
            writer.send(value)
        writer.close()

    thread = threading.Thread(target=write)
    thread.start()
    found = b"".join(iter(lambda: os.read(reader.fileno(), 1 << 16), b""))
    thread.join()
    reader.close()
    return found


def test_all_that_is_there_comes_by_one_read(ends, monkeypatch):
    pipe, other = ends
    for number in range(5):
        other.send(number)
    reads = []
    real = Pipe._read
    monkeypatch.setattr(Pipe, "_read", lambda *args: (reads.append(args), real(*args))[1])
    assert pipe.receive_all() == [0, 1, 2, 3, 4]
    assert len(reads) == 1
    assert not pipe.pending()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3 * pipes.READ), min_size=1, max_size=6), st.data())
def test_messages_of_any_length_come_whole_and_in_order(sizes, data):
    """However the bytes are cut on their way."""
    ours, theirs = multiprocessing.Pipe()
    pipe = Pipe(ours, parent=True)
    ours.close()
    sent = [bytes([number]) * size for number, size in enumerate(sizes)]
    text = _framed(*sent)
    cut = data.draw(st.integers(0, len(text)))

    def write():
        for part in (text[:cut], text[cut:]):
            while part:
                part = part[os.write(theirs.fileno(), part) :]

    thread = threading.Thread(target=write)
    thread.start()
    found = []
    while len(found) < len(sizes):
        found += pipe.receive_all()
    thread.join()
    assert found == sent
    pipe.close()
    theirs.close()


def test_long_messages_have_a_longer_length(monkeypatch):
    """From 2 GiB on; not sent here."""
    body = bytearray(pipes._SHORT.pack(-1) + pipes._LONG.pack(3) + b"abc")
    assert pipes._bounds(body, 0) == (12, 15)
    assert pipes._bounds(body[:-1], 0) is None
    assert pipes._bounds(body[:7], 0) is None


@pytest.mark.parametrize("kept", range(1, 12))
def test_what_was_whole_comes_though_the_next_was_cut(ends, kept):
    """Its sender died in the middle."""
    pipe, other = ends
    os.write(other.fileno(), _framed("one", "two") + _framed("three")[:kept])
    other.close()
    assert pipe.receive_all() == ["one", "two"]
    assert pipe.pending()
    for receive in (pipe.receive_all, pipe.receive):
        with pytest.raises(Lost):
            receive()


def test_after_one_whose_rest_did_not_come_nothing_makes_sense(ends, ended):
    """Its sender has ended, but a child of its own holds the pipe open."""
    pipe, other = ends
    rest = _framed("two")
    pipe.end = ended
    os.write(other.fileno(), _framed("one") + rest[:5])
    assert pipe.receive_all() == ["one"]
    os.write(other.fileno(), rest[5:])
    with pytest.raises(Lost):
        pipe.receive_all()


@pytest.fixture
def ended():
    """A descriptor such as that of a process that has ended."""
    reader, writer = os.pipe()
    os.close(writer)
    yield reader
    os.close(reader)


def test_a_message_that_the_other_end_does_not_take_waits_for_it(ends, ended):
    """As long as there is time, and as it lives."""
    pipe, other = ends
    message = bytes(1 << 23)
    thread = threading.Thread(target=pipe.send, args=(message,))
    thread.start()
    assert other.poll(60)
    assert other.recv() == message
    thread.join()
    with pytest.raises(Lost):
        pipe.ask(message, deadline=0.0)
    assert pipe.owed
    pipe.end = ended
    with pytest.raises(Lost):
        pipe.send(message)


def test_no_signal_comes_of_an_end_that_is_gone():
    done = kernels.run(
        """
        import multiprocessing, signal
        from shmcompute.backends.processes.protocol import Lost, Pipe

        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        ours, theirs = multiprocessing.Pipe()
        pipe = Pipe(ours, parent=True)
        theirs.close()
        try:
            pipe.send("a word")
        except Lost:
            print("lost")
        """
    )
    assert done.stdout == "lost\n"


def test_an_end_without_a_word_is_lost(ends):
    pipe, other = ends
    other.close()
    with pytest.raises(Lost):
        pipe.receive_all()
