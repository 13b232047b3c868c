"""The RIB: which of several offers a prefix gets."""

from ipaddress import ip_network

from engine.desired.rib import MAX_NEXT_HOPS, Offer, Preference, best
from engine.model import Via


def hop(number, kind="tunnel"):
    return Via(kind, f"t{number:03}", mtu=1450)


PREFIX = ip_network("10.0.0.0/8")


def test_best_is_the_lowest_preference():
    offers = [Offer(PREFIX, preference, (hop(int(preference)),)) for preference in Preference]
    assert best(offers) == best(reversed(offers)) == {PREFIX: (hop(0),)}


def test_equal_preference_merges_without_repetition_up_to_the_limit():
    offers = [Offer(PREFIX, Preference.PEER, (hop(number), hop(number + 1))) for number in range(40)]
    (vias,) = best(offers).values()
    assert vias == tuple(hop(number) for number in range(MAX_NEXT_HOPS))
    assert best(offers[::-1] + offers) == best(offers)


def test_unreachable_gives_way_to_its_equals_only():
    nowhere = Via("reject", "unreachable")
    assert best([Offer(PREFIX, Preference.PEER, (nowhere, hop(1)))]) == {PREFIX: (hop(1),)}
    assert best([Offer(PREFIX, Preference.STATIC, (nowhere,)), Offer(PREFIX, Preference.PEER, (hop(1),))]) == {
        PREFIX: (nowhere,)
    }
    both = [Offer(PREFIX, Preference.STATIC, (nowhere, Via("reject", "blackhole")))]
    assert best(both) == {PREFIX: (Via("reject", "blackhole"),)}
