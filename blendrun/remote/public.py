"""Which addresses are of the public internet, by IANA's registries of special-purpose addresses."""

from __future__ import annotations

import ipaddress

# All global unicast addresses that are given out; whatever lies outside is reserved, or speaks of an IPv4 address.
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
# Of these: IETF protocols (Teredo, benchmarking, ORCHID, and what else stands there), documentation.
_NOT_PUBLIC_6 = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "3fff::/20")))
# Addresses whose last 32 bits are the IPv4 address that is reached: mapped, and translated (RFC 6052).
_EMBEDDING = tuple(map(ipaddress.IPv6Network, ("::ffff:0:0/96", "64:ff9b::/96")))
# What `is_global` of Python 3.11 takes for public: IETF protocols, relays to IPv6 that are no more (RFC 7526); and what
# a cloud answers itself, to its own machines only.
_NOT_PUBLIC_4 = tuple(map(ipaddress.IPv4Network, ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32")))


def is_public(address: str) -> bool:
    """Whether the address is one of the public internet: not loopback, private, link-local, multicast or reserved."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv4Address):
        return ip.is_global and not ip.is_multicast and not any(ip in network for network in _NOT_PUBLIC_4)
    inner = ip.sixtofour
    if any(ip in network for network in _EMBEDDING):
        inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    if inner is not None:
        return is_public(str(inner))
    return ip in _GLOBAL_UNICAST and not any(ip in network for network in _NOT_PUBLIC_6)
