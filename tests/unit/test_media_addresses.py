from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.media.addresses import METADATA, carried, refusal

PRIVATE_V4 = st.one_of(
    *(
        st.ip_addresses(network=network)
        for network in (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.2.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "224.0.0.0/4",
            "240.0.0.0/4",
        )
    )
)
LINK_LOCAL_AND_MULTICAST = (
    "169.254.1.1",
    "224.0.0.1",
    "255.255.255.255",
    "0.0.0.0",  # noqa: S104 - an address to refuse, and none to bind to
    "fe80::1",
    "ff02::1",
    "::",
    "::ffff:10.0.0.1",
)


def wrapped(address: int) -> list[IPv6Address]:
    """Every IPv6 form at which a packet ends at an IPv4 address."""
    mixed = (0x0064FF9B << 96) | (1 << 80)
    return [
        IPv6Address((0xFFFF << 32) | address),  # mapped
        IPv6Address(address),  # compatible
        IPv6Address((0xFFFF << 48) | address),  # translated
        IPv6Address((0x0064FF9B << 96) | address),  # NAT64
        IPv6Address(mixed | address),  # NAT64 of one's own, /96
        IPv6Address(mixed | address << 24),  # /64
        IPv6Address(mixed | (address >> 24) << 64 | (address & 0xFFFFFF) << 32),  # /56
        IPv6Address(mixed | (address >> 16) << 64 | (address & 0xFFFF) << 40),  # and /48
        IPv6Address((0x2002 << 112) | (address << 80) | 1),  # 6to4
        IPv6Address((0x20010000 << 96) | (0x08080808 << 64) | (address ^ 0xFFFFFFFF)),  # Teredo
        IPv6Address((0x20010000 << 96) | (address << 64) | (0x08080808 ^ 0xFFFFFFFF)),
        IPv6Address((0x2A00 << 112) | (0x5EFE << 32) | address),  # ISATAP
        IPv6Address((0x2A00 << 112) | (0x02005EFE << 32) | address),
    ]


@given(PRIVATE_V4)
def test_no_form_of_a_private_address_is_connected_to(address: IPv4Address) -> None:
    assert refusal(str(address), private_allowed=False)
    for form in wrapped(int(address)):
        assert refusal(str(form), private_allowed=False), form


@given(st.ip_addresses())
def test_what_may_be_connected_to_is_public_whatever_python_calls_it(
    address: IPv4Address | IPv6Address,
) -> None:
    if refusal(str(address), private_allowed=False) is None:
        for end in carried(address) or (address,):
            assert not end.is_private
            assert not end.is_multicast
            assert not end.is_reserved
            assert not end.is_link_local
            assert not any(end in network for network in METADATA)


@given(st.ip_addresses(v=4))
def test_an_address_in_disguise_is_found_in_each_form(address: IPv4Address) -> None:
    if int(address) > 1:
        for form in wrapped(int(address)):
            assert address in carried(form), form


@pytest.mark.parametrize("address", ["8.8.8.8", "104.16.0.1", "2606:4700::1111", "2a00:1450::1"])
def test_public_addresses_are_connected_to(address: str) -> None:
    assert refusal(address, private_allowed=False) is None


@pytest.mark.parametrize("address", ["8.8.8.8", "104.16.0.1"])
def test_a_public_address_behind_nat64_is_connected_to(address: str) -> None:
    # A network without IPv4 reaches everything so (RFC 6147).
    form = IPv6Address((0x0064FF9B << 96) | int(ip_address(address)))
    assert refusal(str(form), private_allowed=False) is None


@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.parametrize("network", METADATA, ids=str)
def test_metadata_is_refused_whatever_the_settings_say(network: object, *, allowed: bool) -> None:
    address = str(network).partition("/")[0]
    assert "credentials" in str(refusal(address, private_allowed=allowed))
    if isinstance(ip_address(address), IPv4Address):
        for form in wrapped(int(ip_address(address))):
            assert "credentials" in str(refusal(str(form), private_allowed=allowed)), form


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "::1", "fd12::1", "100.64.0.1"])
def test_private_addresses_are_opened_by_a_setting_in_their_plain_form(address: str) -> None:
    assert refusal(address, private_allowed=False)
    assert refusal(address, private_allowed=True) is None


@pytest.mark.parametrize("address", LINK_LOCAL_AND_MULTICAST)
def test_no_setting_opens_the_rest(address: str) -> None:
    assert refusal(address, private_allowed=True)


@pytest.mark.parametrize("text", ["", "localhost", "127.1", "0x7f000001", "fe80::1%eth0", "::1%1"])
def test_what_is_no_plain_address_is_refused(text: str) -> None:
    assert refusal(text, private_allowed=True)
