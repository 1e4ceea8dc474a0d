"""What firewalls do to a new packet, told from their rules."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.node.core.firewall_rules import (
    Packet,
    fate,
    read_iptables,
    read_nft,
    setting,
    zone_lets_in,
)

P2P = Packet("tcp", 4170)
MDNS = Packet("udp", 5353)


def match(left: object, right: object, op: str = "==") -> dict[str, object]:
    return {"match": {"op": op, "left": left, "right": right}}


def dport(protocol: str, right: object) -> dict[str, object]:
    return match({"payload": {"protocol": protocol, "field": "dport"}}, right)


STATE = match({"ct": {"key": "state"}}, ["established", "related"], "in")
LOOPBACK = match({"meta": {"key": "iifname"}}, "lo")
LAN = match({"payload": {"protocol": "ip", "field": "saddr"}}, "192.168.1.0")
ACCEPT: dict[str, object] = {"accept": None}
DROP: dict[str, object] = {"drop": None}
STATES = {
    "vmap": {
        "key": {"ct": {"key": "state"}},
        "data": {"set": [["established", ACCEPT], ["related", ACCEPT], ["invalid", DROP]]},
    }
}
PORTS = {
    "vmap": {
        "key": {"payload": {"protocol": "tcp", "field": "dport"}},
        "data": {"set": [[22, ACCEPT], [{"range": [4000, 4200]}, DROP]]},
    }
}


def ruleset(policy: str, *rules: list[object], **chains: list[list[object]]) -> str:
    place = {"family": "inet", "table": "t"}
    listed: list[object] = [{"metainfo": {"json_schema_version": 1}}]
    listed.append({"chain": {**place, "name": "in", "hook": "input", "policy": policy}})
    for name, inside in {"in": list(rules), **chains}.items():
        listed += [{"rule": {**place, "chain": name, "expr": parts}} for parts in inside]
    return json.dumps({"nftables": listed})


@pytest.mark.parametrize(
    ("rules", "of_p2p", "of_mdns"),
    [
        (ruleset("accept"), "accepted", "accepted"),
        (ruleset("drop"), "dropped", "dropped"),
        (ruleset("drop", [STATE, ACCEPT], [LOOPBACK, ACCEPT]), "dropped", "dropped"),
        (ruleset("drop", [dport("tcp", 4170), ACCEPT]), "accepted", "dropped"),
        (ruleset("drop", [dport("tcp", {"range": [4000, 5000]}), ACCEPT]), "accepted", "dropped"),
        (ruleset("drop", [dport("udp", {"set": [53, 5353]}), ACCEPT]), "dropped", "accepted"),
        (ruleset("drop", [dport("udp", "@ports"), ACCEPT]), "dropped", "sometimes"),
        (ruleset("accept", [dport("tcp", 4170), DROP]), "dropped", "accepted"),
        (ruleset("accept", [dport("tcp", 4170), {"reject": None}]), "dropped", "accepted"),
        (ruleset("drop", [LAN, ACCEPT]), "sometimes", "sometimes"),
        (ruleset("drop", [STATES]), "dropped", "dropped"),
        (ruleset("accept", [PORTS]), "dropped", "accepted"),
        (ruleset("drop", [PORTS], own=[[dport("udp", 5353), ACCEPT]]), "dropped", "dropped"),
        (ruleset("accept", [LAN, DROP]), "accepted", "accepted"),
        (
            ruleset("drop", [{"jump": {"target": "own"}}], own=[[dport("tcp", 4170), ACCEPT]]),
            "accepted",
            "dropped",
        ),
        (
            ruleset("accept", [{"jump": {"target": "own"}}], own=[[{"return": None}]]),
            "accepted",
            "accepted",
        ),
        (ruleset("drop", [{"goto": {"target": "in"}}]), "dropped", "dropped"),
    ],
)
def test_nftables_are_followed_as_the_kernel_does(rules: str, of_p2p: str, of_mdns: str) -> None:
    assert fate(read_nft(rules, P2P)) == of_p2p
    assert fate(read_nft(rules, MDNS)) == of_mdns


WORDS = ("accept", "drop", "jump", "match", "vmap", "key", "data", "left", "right", "op", "set")
MORE = ("payload", "protocol", "field", "dport", "tcp", "meta", "iifname", "ct", "state", "range")
ANYTHING = st.recursive(
    st.none() | st.integers() | st.text() | st.sampled_from([*WORDS, *MORE]),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*WORDS, *MORE]), inner),
)


@given(said=ANYTHING)
def test_a_rule_of_whatever_shape_is_no_error(said: object) -> None:
    rules = read_nft(ruleset("drop", [said, DROP], [{"rule": said}]), P2P)
    assert fate(rules) in {"accepted", "sometimes", "dropped"}
    listed = json.dumps({"nftables": [said, {"chain": said}, {"rule": said}]})
    assert fate(read_nft(listed, P2P)) in {"accepted", "sometimes", "dropped"}


def test_chains_that_lead_to_each_other_many_times_over_are_walked_once() -> None:
    deep = {f"c{n}": [[{"jump": {"target": f"c{n + 1}"}}]] * 20 for n in range(30)}
    rules = ruleset("drop", [{"jump": {"target": "c0"}}], **deep, c30=[[ACCEPT]])
    assert fate(read_nft(rules, P2P)) == "accepted"
    undecided = ruleset("drop", [{"jump": {"target": "c0"}}], **deep)
    assert fate(read_nft(undecided, P2P)) == "dropped"


def test_something_that_is_no_ruleset_is_refused() -> None:
    for said in ("", "no json", "[]", '{"nftables": 1}'):
        with pytest.raises(ValueError):  # noqa: PT011 json has one of its own
            read_nft(said, P2P)


UFW = """\
*nat
:INPUT DROP [0:0]
COMMIT
*filter
:INPUT DROP [0:0]
:ufw-user-input - [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -j LOG --log-prefix "[x] -j DROP "
-A INPUT -j ufw-user-input
-A INPUT -p udp -d 224.0.0.251/32 -m udp --dport 5353 -j ACCEPT
-A ufw-user-input -p tcp -m multiport --dports 22,4100:4200 -j ACCEPT
-A ufw-user-input ! -p udp -j RETURN
COMMIT
"""


def test_iptables_are_followed_as_the_kernel_does() -> None:
    assert fate(read_iptables(UFW, P2P)) == "accepted"
    assert fate(read_iptables(UFW, Packet("tcp", 4099))) == "dropped"
    assert fate(read_iptables(UFW, MDNS)) == "sometimes"
    assert fate(read_iptables("*nat\n:INPUT DROP [0:0]\n", P2P)) == "accepted"
    rejecting = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -j REJECT --reject-with x\n"
    assert fate(read_iptables(rejecting, P2P)) == "dropped"
    assert fate(read_iptables(rejecting, MDNS)) == "accepted"


def test_settings_are_read_as_the_shell_does() -> None:
    text = '# ENABLED=no\nENABLED=yes # on\nDEFAULT_INPUT_POLICY="DROP"\n'
    assert setting(text, "ENABLED") == "yes"
    assert setting(text, "DEFAULT_INPUT_POLICY") == "DROP"
    assert setting(text, "OTHER") == ""


def test_a_zone_of_firewalld_lets_in_its_ports_and_services() -> None:
    zone = '<zone><service name="mdns"/><port protocol="tcp" port="4000-4200"/></zone>'
    assert zone_lets_in(zone, MDNS)
    assert zone_lets_in(zone, P2P)
    assert not zone_lets_in(zone, Packet("tcp", 4201))
    assert not zone_lets_in(zone, Packet("udp", 4170))
    assert zone_lets_in('<zone target="ACCEPT"></zone>', Packet("tcp", 1))
