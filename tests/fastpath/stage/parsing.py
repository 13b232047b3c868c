"""What parse finds in a packet, asked of the compiled stage and of the twin at once."""

from __future__ import annotations

from fastpath import reasons, reference
from fastpath.reference import PLAIN, UDP, Offload
from tests.cy import probe_wire
from tests.fastpath.packets import A6, B6, chained, ipv6, udp

KEY = 0x0123456789ABCDEF
MORE = 0x2000  # the flag of a fragment that is not the last


def compiled(data: bytes, offload: Offload = PLAIN) -> dict[str, object]:
    found = probe_wire.parse_packet(data, KEY, offload.gso_type, offload.gso_size, offload.pending)
    if found["verdict"] == "drop":
        assert found["n_segments"] == 1
        return {"reason": reasons.REASONS[found["reason"]].name}
    del found["verdict"]
    return dict(found)


def twin(data: bytes, offload: Offload = PLAIN) -> dict[str, object]:
    try:
        p = reference.parse(data, offload)
    except reference.Drop as drop:
        return {"reason": drop.reason}
    return {
        "length": len(p.data),
        "family": p.family,
        "protocol": p.protocol,
        "traffic_class": p.traffic_class,
        "transport": p.transport,
        "payload": p.payload,
        "fragment": p.fragment,
        "later_fragment": p.later_fragment,
        "dont_fragment": p.dont_fragment,
        "n_segments": p.n_segments,
        "gso_size": p.offload.gso_size,
        "gso_type": p.offload.gso_type,
        "flow_hash": reference.flow_hash(p, KEY),
    }


def assert_dropped(data: bytes, reason: str, offload: Offload = PLAIN) -> None:
    assert compiled(data, offload) == {"reason": reason}
    assert twin(data, offload) == {"reason": reason}


def assert_passed(data: bytes, offload: Offload = PLAIN, **fields: object) -> None:
    found = compiled(data, offload)
    assert "reason" not in found, found
    assert found == twin(data, offload)
    for name, value in fields.items():
        assert found[name] == value, (name, found)


def extended(*headers: tuple[int, bytes], protocol: int = UDP, body: bytes | None = None) -> bytes:
    kind, data = chained(list(headers), protocol, udp(A6, B6, b"towpath!") if body is None else body)
    return ipv6(data, kind)
