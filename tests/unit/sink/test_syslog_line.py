import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import trustme

from sandboxd.sink.syslog_line import DatagramLine, StreamLine, confirm, confirm_tls, tcp, tls, unix_stream
from sandboxd.sink.syslog_message import LEAST_BYTES
from tests.fakes.syslog import RESET, Receiver, read_all, receiving


def message(content: bytes, most_bytes: int) -> bytes:
    return content[:most_bytes]


def messages(*contents: bytes) -> list[Callable[[int], bytes]]:
    return [partial(message, content) for content in contents]


def stream(receiver: Receiver, timeout_seconds: float = 10) -> StreamLine:
    return StreamLine(tcp("127.0.0.1", receiver.port), confirm, 8192, timeout_seconds)


MANY = messages(*(b"%d " % number + b"x" * 1000 for number in range(500)))


def test_a_stream_has_taken_all_when_it_has_read_all() -> None:
    with receiving() as receiver:
        line = stream(receiver)
        for _ in range(3):
            line.send(messages(b"a", b"b c"))
        line.send(MANY)
        assert receiver.messages == [b"a", b"b c"] * 3 + [made(8192) for made in MANY]


def test_a_unix_stream_is_no_other(tmp_path: Path) -> None:
    with receiving(path=tmp_path / "s") as receiver:
        StreamLine(unix_stream(str(tmp_path / "s")), confirm, 8192, 10).send(MANY)
        assert len(receiver.messages) == len(MANY)


def read_a_little_and_reset(receiver: Receiver, connection: socket.socket, number: int) -> None:
    connection.recv(10)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def read_a_little_and_close(receiver: Receiver, connection: socket.socket, number: int) -> None:
    connection.recv(10)


def close_at_once(receiver: Receiver, connection: socket.socket, number: int) -> None:
    pass


BREAKING = [read_a_little_and_reset, read_a_little_and_close, close_at_once]


@pytest.mark.parametrize("behave", BREAKING)
@pytest.mark.parametrize("sent", [messages(b"a" * 100), MANY], ids=["little", "much"])
@pytest.mark.parametrize("unix", [False, True])
def test_who_has_not_read_all_has_not_taken_it(
    behave: Callable[[Receiver, socket.socket, int], None],
    sent: list[Callable[[int], bytes]],
    unix: bool,
    tmp_path: Path,
) -> None:
    path = tmp_path / "s" if unix else None
    with receiving(behave, path=path) as receiver:
        connect = unix_stream(str(path)) if unix else tcp("127.0.0.1", receiver.port)
        line = StreamLine(connect, confirm, 8192, 10)
        for _ in range(5):
            with pytest.raises(OSError, match=r".+"):
                line.send(sent)


def say_bye_and_break_off(receiver: Receiver, connection: socket.socket, number: int) -> None:
    connection.shutdown(socket.SHUT_WR)
    time.sleep(0.1)


def test_who_says_that_it_is_done_before_it_has_read_is_waited_for(tmp_path: Path) -> None:
    """Over a unix socket, where it can be seen what is not read."""
    with receiving(say_bye_and_break_off, path=tmp_path / "s"):
        line = StreamLine(unix_stream(str(tmp_path / "s")), confirm, 8192, 10)
        with pytest.raises(ConnectionError, match="before it had read all"):
            line.send(messages(b"a"))


def hold(release: threading.Event, receiver: Receiver, connection: socket.socket, number: int) -> None:
    release.wait(20)


@pytest.mark.parametrize("sent", [messages(b"a"), MANY * 40], ids=["little", "much"])
def test_who_does_not_read_is_given_up_in_time(sent: list[Callable[[int], bytes]]) -> None:
    release = threading.Event()
    with receiving(partial(hold, release)) as receiver:
        with pytest.raises(TimeoutError):
            stream(receiver, timeout_seconds=0.3).send(sent)
        release.set()


def talk_and_read(receiver: Receiver, connection: socket.socket, number: int) -> None:
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    read_all(receiver, connection, number)


def test_who_answers_is_no_syslog_receiver_and_has_taken_nothing() -> None:
    with receiving(talk_and_read) as receiver, pytest.raises(ConnectionError, match="no syslog receiver"):
        stream(receiver).send(messages(b"a"))


def test_nobody_there_is_an_error_also_if_there_is_nothing_to_send(tmp_path: Path) -> None:
    with receiving() as receiver:
        stream(receiver).send([])
        gone = stream(receiver)
    for line in (gone, DatagramLine(str(tmp_path / "none"), 8192, 1)):
        with pytest.raises(OSError, match=r"refused|No such file"):
            line.send([])
        line.close()


# --- TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def serving(authority: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return context


def secure(receiver: Receiver, authority: trustme.CA, *, signed_end: bool = True) -> StreamLine:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    end = partial(confirm_tls, signed_end=signed_end)
    return StreamLine(tls("127.0.0.1", receiver.port, context), end, 8192, 10)


def test_over_tls_a_receiver_that_ends_in_order_has_taken_all(authority: trustme.CA) -> None:
    with receiving(tls=serving(authority)) as receiver:
        for _ in range(3):
            secure(receiver, authority).send(MANY)
        assert len(receiver.messages) == 3 * len(MANY)


def test_over_tls_an_end_that_anybody_could_have_made_counts_only_if_that_is_wanted(authority: trustme.CA) -> None:
    with receiving(tls=serving(authority), close_notify=False) as receiver:
        with pytest.raises(ConnectionError, match="close_notify"):
            secure(receiver, authority).send(messages(b"a"))
        secure(receiver, authority, signed_end=False).send(messages(b"b"))
        assert receiver.messages == [b"a", b"b"]


@pytest.mark.parametrize("behave", BREAKING)
@pytest.mark.parametrize("signed_end", [True, False])
def test_over_tls_who_has_not_read_all_has_not_taken_it(
    behave: Callable[[Receiver, socket.socket, int], None], signed_end: bool, authority: trustme.CA
) -> None:
    with receiving(behave, tls=serving(authority), close_notify=False) as receiver:
        for _ in range(3):
            with pytest.raises(OSError, match=r".+"):
                secure(receiver, authority, signed_end=signed_end).send(MANY)


@pytest.mark.parametrize("name", ["127.0.0.2", "elsewhere.test"])
def test_a_certificate_for_somebody_else_is_not_believed(name: str, authority: trustme.CA) -> None:
    with receiving(tls=serving(authority, name)) as receiver, pytest.raises(ssl.SSLCertVerificationError):
        secure(receiver, authority).send(messages(b"a"))


# --- datagrams


@pytest.fixture
def datagrams(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "log"))
        made.settimeout(20)
        yield made


def test_a_datagram_is_a_message(datagrams: socket.socket, tmp_path: Path) -> None:
    line = DatagramLine(str(tmp_path / "log"), 8192, 10)
    line.send(messages(b"a", b"b\nc"))
    assert [datagrams.recv(100), datagrams.recv(100)] == [b"a", b"b\nc"]
    line.close()


def test_what_the_socket_does_not_take_is_made_shorter(datagrams: socket.socket, tmp_path: Path) -> None:
    line = DatagramLine(str(tmp_path / "log"), 1 << 20, 10)
    line.send(messages(b"x" * (1 << 20)))
    assert LEAST_BYTES <= len(datagrams.recv(1 << 21)) < 1 << 20
    line.send(messages(b"b"))
    assert datagrams.recv(100) == b"b"
    line.close()


def test_a_receiver_that_does_not_read_is_waited_for_in_bounds(datagrams: socket.socket, tmp_path: Path) -> None:
    line = DatagramLine(str(tmp_path / "log"), 8192, 0.2)
    with pytest.raises(TimeoutError):
        line.send(messages(*(b"%d" % number for number in range(10_000))))
    assert datagrams.recv(100) == b"0"
    line.close()


def test_a_receiver_that_was_restarted_is_found_again(tmp_path: Path) -> None:
    line, path = DatagramLine(str(tmp_path / "log"), 8192, 10), tmp_path / "log"
    for number in range(3):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
            made.bind(str(path))
            if number:
                with pytest.raises(ConnectionRefusedError):
                    line.send(messages(b"lost"))
            line.send(messages(b"%d" % number))
            assert made.recv(100) == b"%d" % number
        path.unlink()
    line.close()
