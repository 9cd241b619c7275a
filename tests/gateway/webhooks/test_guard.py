"""Where webhooks may go: every range that must be refused, and names that lead there."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

import pytest

from ephemeralml.producer.gateway.webhooks.guard import addresses, is_public, read_url
from ephemeralml.wire.errors import ConfigurationError, FetchError

REFUSED = [
    "0.0.0.0", "0.1.2.3",  # noqa: S104
    "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "127.0.0.1",
    "127.255.255.254", "168.63.129.16", "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255",
    "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1",
    "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1",
    "64:ff9b:1::a9fe:a9fe",
    "100::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1", "2002:7f00:1::1",
    "2002:a9fe:a9fe::", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1",
]  # fmt: skip
TAKEN = [
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "100.128.0.1",
    "172.32.0.1",
    "2606:4700::1111",
    "2a00:1450::1",
]


@pytest.mark.parametrize("text", REFUSED)
def test_refused_addresses(text: str) -> None:
    assert not is_public(ip_address(text))
    with pytest.raises(ConfigurationError, match="WEBHOOK_ADDRESS_REFUSED"):
        addresses(read_url("https://name.example/"), lambda *_: [text])
    host = f"[{text}]" if ":" in text else text
    with pytest.raises(ConfigurationError, match=r"WEBHOOK_ADDRESS_REFUSED|BAD_WEBHOOK_URL"):
        read_url(f"https://{host}/")


@pytest.mark.parametrize("text", TAKEN)
def test_taken_addresses(text: str) -> None:
    assert is_public(ip_address(text))
    assert addresses(read_url("https://name.example/"), lambda *_: [text]) == [text]


@pytest.mark.parametrize("found", [["8.8.8.8", "10.0.0.1"], ["2606:4700::1111", "::1"], ["fe80::1%eth0"]])
def test_one_bad_address_refuses_the_name(found: Sequence[str]) -> None:
    with pytest.raises(ConfigurationError, match="WEBHOOK_ADDRESS_REFUSED"):
        addresses(read_url("https://name.example/"), lambda *_: found)


@pytest.mark.parametrize("found", [[], ["8.8.8.8"] * 33])
def test_no_address_or_too_many(found: Sequence[str]) -> None:
    with pytest.raises(FetchError, match="NAME_NOT_RESOLVED"):
        addresses(read_url("https://name.example/"), lambda *_: found)


@pytest.mark.parametrize(
    "url",
    [
        "", "name.example", "http://name.example/", "ftp://name.example/", "https:///x", "https://",
        "https://user@name.example/", "https://user:word@name.example/", "https://name.example/#part",
        "https://name.example:0/", "https://name.example:99999/", "https://name.example:x/",
        "https://na me.example/", "https://name.example/\r\nHost: x", "https://näme.example/",
        "https://name.example\\@10.0.0.1/", "https://-name.example/", "https://a..b/", "https://[fe80::1%25eth0]/",
        "https://0x7f.1/%", "https://2130706433/", "https://127.1/", "https://name.example/" + "a" * 2048,
        "http://localhost/", "http://127.0.0.1/",
    ],
)  # fmt: skip
def test_urls_of_another_form(url: str) -> None:
    """Numbers that some resolvers take for addresses are names here; the address they yield is judged."""
    with pytest.raises(ConfigurationError, match=r"BAD_WEBHOOK_URL|WEBHOOK_ADDRESS_REFUSED"):
        addresses(read_url(url), lambda *_: ["127.0.0.1"])


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/x?y=1", "http://localhost/", "http://[::1]:1/"])
def test_development_may_stay_on_this_machine(url: str) -> None:
    target = read_url(url, allow_loopback_http=True)
    assert addresses(target, lambda *_: ["127.0.0.1"], allow_loopback_http=True)
    with pytest.raises(ConfigurationError):
        read_url("http://name.example/", allow_loopback_http=True)
    with pytest.raises(ConfigurationError):
        read_url("http://10.0.0.1/", allow_loopback_http=True)


def test_parts_of_a_url() -> None:
    target = read_url("https://Name.Example:8443/hook?a=b")
    assert (target.host, target.port, target.path) == ("name.example", 8443, "/hook?a=b")
    assert target.host_header == "name.example:8443"
    assert read_url("https://name.example").path == "/"
    assert read_url("https://[2606:4700::1111]/").host_header == "[2606:4700::1111]"
