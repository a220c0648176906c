"""Which addresses may be connected to: the question is where a packet ends, not how it is written.

The tables are our own because `ipaddress.is_global` answers another question (it says True for
`64:ff9b::a9fe:a9fe`, `::7f00:1` and `224.0.0.1`), and answers it differently in each patch release.
Source of the blocks: IANA's IPv4 and IPv6 special-purpose and multicast address registries.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Where clouds answer for their machines' credentials; refused whatever the settings say.
# Sources: the clouds' own pages on instance metadata (AWS, ECS, EKS, GCP, Azure, Alibaba, Oracle).
METADATA: Final = tuple(
    map(
        ip_network,
        (
            "169.254.169.254",
            "169.254.169.253",
            "169.254.170.2",
            "169.254.170.23",
            "168.63.129.16",  # Azure's: public by its number, so that no other rule refuses it
            "100.100.100.200",
            "192.0.0.192",
            "fd00:ec2::/32",
            "fd20:ce::254",
        ),
    )
)

# What a setting may open for one host and port: a team's own networks, and this machine.
PRIVATE: Final = tuple(
    map(
        ip_network,
        (
            "127.0.0.0/8",
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "100.64.0.0/10",
            "::1",
            "fc00::/7",
        ),
    )
)

_NOT_PUBLIC_V4: Final = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.31.196.0/24",
            "192.52.193.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "192.175.48.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/3",  # multicast, reserved, broadcast
        ),
    )
)

# Global unicast is allocated from this one block only; what is outside of it is link-local,
# unique-local, site-local, multicast, discarded, translated or not given out.
_PUBLIC_V6: Final = ip_network("2000::/3")
_NOT_PUBLIC_V6: Final = tuple(
    map(
        ip_network,
        (
            "2001::/23",  # protocol assignments, Teredo among them
            "2001:db8::/32",
            "2002::/16",  # 6to4
            "2620:4f:8000::/48",
            "3fff::/20",
        ),
    )
)

_NAT64: Final = ip_network("64:ff9b::/96")
_NAT64_LOCAL: Final = ip_network("64:ff9b:1::/48")
_COMPATIBLE: Final = ip_network("::/96")
_TRANSLATED: Final = ip_network("::ffff:0:0:0/96")
_ISATAP: Final = frozenset({0x0000_5EFE, 0x0200_5EFE})
_LOW: Final = 0xFFFF_FFFF


def carried(address: Address) -> tuple[IPv4Address, ...]:
    """Every IPv4 address at which a packet to an IPv6 form may end; none for a plain address.

    Mapped and compatible (RFC 4291), 6to4 (RFC 3056), NAT64 (RFC 6052, RFC 8215), translated
    (RFC 2765), Teredo with its server and its client (RFC 4380), ISATAP (RFC 5214).
    """
    if isinstance(address, IPv4Address):
        return ()
    whole = int(address)
    low = IPv4Address(whole & _LOW)
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    # :: and ::1 are addresses of their own, and none in disguise
    compatible = address in _COMPATIBLE and whole > 1
    isatap = whole >> 32 & _LOW in _ISATAP
    if compatible or isatap or address in _NAT64 or address in _TRANSLATED:
        found.append(low)
    if address in _NAT64_LOCAL:
        # Its users choose the prefix length (/96, /64, /56, /48), and byte 8 is left out.
        found += [
            low,
            IPv4Address(whole >> 24 & _LOW),
            IPv4Address((whole >> 64 & 0xFF) << 24 | whole >> 32 & 0xFF_FFFF),
            IPv4Address((whole >> 64 & 0xFFFF) << 16 | whole >> 40 & 0xFFFF),
        ]
    return tuple(end for end in found if end is not None)


def refusal(text: str, *, private_allowed: bool) -> str | None:
    """Why an address is not to be connected to; None where it may be.

    Args:
        text: as a resolver gives it.
        private_allowed: whether the settings name the host it stands for. Opens the team's own
            networks and loopback in their plain form: never metadata, link-local or multicast.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return f"{text!r} is not an address"
    if "%" in text:
        return f"{text} names a zone of this machine"
    ends = carried(address)
    if any(_among(end, METADATA) for end in (address, *ends)):
        return f"{text} answers for a cloud's credentials"
    if private_allowed and _among(address, PRIVATE):
        return None
    # What a network translates for itself is not public, wherever it ends (RFC 8215).
    for end in ends if ends and address not in _NAT64_LOCAL else (address,):
        if not _is_public(end):
            disguise = f", which ends at {end}," if end != address else ""
            return f"{text}{disguise} is not on the public internet"
    return None


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return not _among(address, _NOT_PUBLIC_V4)
    return address in _PUBLIC_V6 and not _among(address, _NOT_PUBLIC_V6)


def _among(address: Address, networks: tuple[Network, ...]) -> bool:
    # `in` is False for a network of the other version.
    return any(address in network for network in networks)
