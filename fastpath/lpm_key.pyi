from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeAlias

AddressKey: TypeAlias = str | int | bytes | IPv4Address | IPv6Address
Key: TypeAlias = AddressKey | IPv4Network | IPv6Network | tuple[AddressKey, int]
