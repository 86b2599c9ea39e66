"""URLs of Redis servers: what is read from them, what is refused, and that secrets stay secret."""

import pytest

from stem_trio import ConfigurationError, InvalidOptionError
from stem_trio.stores.redis.address import Tls, parse_address, redact


def test_plain_url():
    """Host, port, database, user and password are read."""
    address = parse_address("redis://ada:s%40crt@example.org:6380/3?client_name=mine")
    assert (address.host, address.port, address.db) == ("example.org", 6380, 3)
    assert (address.username, address.password, address.client_name) == ("ada", "s@crt", "mine")
    assert address.tls is None
    assert address.label == "example.org:6380"


def test_defaults():
    """What a URL leaves out is what Redis itself takes."""
    address = parse_address("redis://")
    assert (address.host, address.port, address.db, address.password) == ("localhost", 6379, 0, None)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://?host=h&port=6380&db=4&username=ada&password=s%2540", ("h", 6380, 4, "ada", "s%40")),
        ("redis://eva:pw@other:1/2?host=h&port=6380&db=4&username=ada&password=x", ("other", 1, 4, "eva", "pw")),
        ("redis://ada@h:0/3/?db=&client_name=a&client_name=b", ("h", 6379, 3, "ada", None)),
        ("redis://:p%3Aw@[::1]:6380//5?protocol=3", ("::1", 6380, 5, None, "p:w")),
        ("redis://a%2Fb/", ("a/b", 6379, 0, None, None)),
    ],
)
def test_query_and_escapes(url, expected):
    """What the query says gives way to what stands before it, but for the database; all is unquoted once."""
    address = parse_address(url)
    assert (address.host, address.port, address.db, address.username, address.password) == expected


def test_unix_socket():
    """A path stands for host and port."""
    address = parse_address("unix:///run/redis.sock?db=2")
    assert address.path == "/run/redis.sock"
    assert address.db == 2
    assert address.label == "/run/redis.sock"


def test_tls_options():
    """rediss reads its options; the certificate and the name are checked unless the URL says otherwise."""
    assert parse_address("rediss://h").tls == Tls()
    address = parse_address("rediss://h?ssl_ca_certs=/ca.pem&ssl_certfile=/c.pem&ssl_keyfile=/k.pem")
    assert address.tls == Tls(ca_certs="/ca.pem", certfile="/c.pem", keyfile="/k.pem")
    for word in ("false", "F", "no", "N", "0"):
        assert parse_address(f"rediss://h?ssl_check_hostname={word}").tls == Tls(check_hostname=False)
    for word in ("true", "yes", "1", ""):
        assert parse_address(f"rediss://h?ssl_check_hostname={word}").tls == Tls()
    assert parse_address("rediss://h?ssl_cert_reqs=none").tls == Tls(verify=False)


def test_sentinels():
    """Sentinels, the service and its database are read; hosts may be IPv6 addresses."""
    url = "redis+sentinel://ada:pw@one:26380,two,[::1]:5/main/4?sentinel_username=s&sentinel_password=sp"
    address = parse_address(url)
    assert address.sentinels == (("one", 26380), ("two", 26379), ("::1", 5))
    assert (address.service, address.db) == ("main", 4)
    assert (address.username, address.password) == ("ada", "pw")
    assert (address.sentinel_username, address.sentinel_password) == ("s", "sp")
    assert "main" in address.label
    assert parse_address("rediss+sentinel://one/main").tls == Tls()


@pytest.mark.parametrize(
    "url",
    [
        "http://user:topsecret@h",
        "user:topsecret@h",
        "redis://user:topsecret@h:port",
        "redis://user:topsecret@h?no_such_option=1",
        "redis://user:topsecret@h?socket_timeout=1",
        "redis://user:topsecret@h?connection_class=x",
        "redis://user:topsecret@h?db=x",
        "redis://user:topsecret@?port=x",
        "redis://user:topsecret@h?protocol=x",
        "redis://user:topsecret@h/1/2",
        "redis://user:topsecret@[::1",
        "redis://user:topsecret@h?ssl_ca_certs=/x",
        "redis://user:topsecret@h/not-a-number",
        "redis://user:topsecret@h/-1",
        "redis://user:topsecret@h?protocol=2",
        "redis://user:topsecret@h?client_name=two words",
        "rediss://user:topsecret@h?ssl_cert_reqs=maybe",
        "redis+sentinel://user:topsecret@h",
        "redis+sentinel://user:topsecret@/service",
        "redis+sentinel://user:topsecret@h/service/0/more",
        "redis+sentinel://user:topsecret@h/service/x",
        "redis+sentinel://user:topsecret@h/service?no_such_option=1",
    ],
)
def test_bad_url(url):
    """A URL that cannot be used is refused, and the message holds no secret."""
    with pytest.raises(ConfigurationError) as caught:
        parse_address(url)
    assert "topsecret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_secrets_are_not_shown():
    """G15: neither the representation of an address nor a redacted URL holds a password."""
    address = parse_address("redis+sentinel://ada:topsecret@h/service?sentinel_password=topsecret")
    assert "topsecret" not in repr(address)
    assert redact("redis://ada:topsecret@h:1/2?password=topsecret") == "redis://h:1/2"


def test_arguments_beat_the_url():
    """Database, TLS and client name can be given beside the URL."""
    address = parse_address("redis://h/1", db=5, tls=Tls(verify=False), client_name="other")
    assert (address.db, address.tls, address.client_name) == (5, Tls(verify=False), "other")
    with pytest.raises(InvalidOptionError, match="db"):
        parse_address("redis://h", db=-1)


def test_unreadable_certificates(tmp_path):
    """A certificate that cannot be read is a configuration error that names the file."""
    with pytest.raises(ConfigurationError, match=r"missing\.pem"):
        Tls(ca_certs=str(tmp_path / "missing.pem")).context()
