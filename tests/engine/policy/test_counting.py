"""Numbers of counters: one a rule, kept while the rule is, given again only after a rest."""

from dataclasses import replace

import pytest

from engine.desired.policy import counting as counting_module
from engine.desired.policy.compiler import Compiler
from engine.desired.policy.counting import Counting, rule_name
from engine.desired.policy.lower import RULE
from engine.desired.policy.model import Action, PeerRule, PortMatch, Snapshot
from engine.desired.policy.program import Source
from tests.engine.policy.generator import Generator
from tests.engine.policy.test_compiler import pods, policy, relabel, snapshot


def ports(*numbers):
    return tuple(PortMatch(6, number, number) for number in numbers)


def number_of(counting, title, rule):
    """Numbers that stand for a rule of a policy."""
    return [
        number
        for number in range(len(counting))
        if (found := counting.decision(number, allowed=True)) and (found.policy, found.rule) == (title, rule)
    ]


@pytest.mark.parametrize("seed", range(10))
def test_every_row_counts_for_its_own_rule(seed):
    program, counting = Compiler().compile(Generator(seed).snapshot()), Counting()
    numbers = counting.number(program)
    assert len(numbers) == len(program.rows)
    for row, number in enumerate(numbers.tolist()):
        action = int(program.rows[row, 7])
        if action in (Action.ALLOW, Action.DENY):
            assert counting.decision(number, allowed=action == Action.ALLOW) == program.explain(row)
    rules = program.rows[:, RULE]
    pairs = {(int(rule), int(number)) for rule, number in zip(rules, numbers, strict=True)}
    assert len(pairs) == len({rule for rule, _ in pairs}) == len({number for _, number in pairs})


def test_a_rule_that_stays_keeps_its_number():
    compiler, counting = Compiler(), Counting()
    counting.number(compiler.compile(snapshot(policy("a"), policy("b", ports=ports(80)))))
    (a,), (b,) = (number_of(counting, f"NetworkPolicy x/{name}", 0) for name in "ab")
    counting.number(compiler.update(snapshot(policy("0"), policy("a"), policy("b", ports=ports(81)))))
    assert number_of(counting, "NetworkPolicy x/a", 0) == [a]
    assert number_of(counting, "NetworkPolicy x/b", 0) != [b]
    assert counting.meaning(b) is None, "what it stood for is gone"
    assert counting.meaning(10**6) is None


@pytest.mark.parametrize(
    "after", [(22, 80, 443, 8080), (80, 22, 443, 8080), (80, 443, 8080, 22), (443, 8080), (80, 8080), (80, 443), (), (80, 22, 8080)]
)
def test_rules_that_stay_keep_their_numbers_when_others_come_and_go(after):
    def written(numbers):
        rules = tuple(PeerRule(Action.ALLOW, ports=ports(number)) for number in numbers)
        return snapshot(replace(policy("a"), ingress=rules))

    def numbers_of(numbers):
        return {port: number_of(counting, "NetworkPolicy x/a", index) for index, port in enumerate(numbers)}

    compiler, counting = Compiler(), Counting()
    before = (80, 443, 8080)
    counting.number(compiler.compile(written(before)))
    first = numbers_of(before)
    counting.number(compiler.update(written(after)))
    second = numbers_of(after)
    assert {port: second[port] for port in after if port in before} == {port: first[port] for port in after if port in before}
    assert all(len(number) == 1 for number in second.values())
    assert len({number for (number,) in second.values()}) == len(after)


def test_a_label_change_numbers_nothing_anew():
    compiler, counting = Compiler(), Counting()
    before = snapshot(policy("a"))
    first = counting.number(compiler.compile(before))
    assert counting.number(compiler.update(relabel(before, "x/p0", app="a1"))) is first


def test_numbers_are_given_again_after_a_rest(monkeypatch):
    monkeypatch.setattr(counting_module, "RESTING", 5)
    compiler, counting = Compiler(), Counting()
    again = []
    for turn in range(50):
        counting.number(compiler.update(snapshot(policy("a", ports=ports(1 + turn)))))
        again += counting.again
    assert len(counting) < 25
    assert again, "some number stood for two rules, one after the other"
    assert len(number_of(counting, "NetworkPolicy x/a", 0)) == 1


def test_policies_of_one_title_do_not_share_numbers():
    """A Kubernetes and a Calico policy may have the same kind and name."""
    generator = Generator(3)
    generator.names = []
    kubernetes = policy("same")
    calico = replace(generator.calico(1), name="same", namespace="x", types=frozenset(("ingress",)), staged="", refusal=None)
    program, counting = Compiler().compile(snapshot(kubernetes, calico)), Counting()
    counting.number(program)
    assert len(number_of(counting, "NetworkPolicy x/same", 0)) == 1 + (len(calico.ingress) > 0)


def test_nobody_at_all():
    counting = Counting()
    program = Compiler().compile(Snapshot(endpoints=pods()))
    assert set(counting.number(program).tolist()) <= set(range(len(counting)))
    assert rule_name(Source("default"), 0) == ""
