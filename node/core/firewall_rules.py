"""What the rules of a firewall do to a new packet from the network, as far as they can be told.

Conditions that depend on who sends, or that are not understood, are neither met nor missed: what
they let in is let in sometimes, and what they drop is not counted, as lists of banned addresses
would be on every server. For the languages see nft(8), libnftables-json(5) and iptables-save(8).
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeGuard

Fate = Literal["accepted", "sometimes", "dropped"]
Met = Literal["yes", "no", "sometimes"]

RULES_MAX = 10_000

_VERDICTS: Mapping[str, Literal["accept", "drop", "return"]] = {
    "ACCEPT": "accept",
    "DROP": "drop",
    "REJECT": "drop",
    "RETURN": "return",
}


@dataclass(frozen=True, slots=True)
class Packet:
    """The first one of a conversation, from another machine."""

    protocol: Literal["tcp", "udp"]
    port: int


@dataclass(frozen=True, slots=True)
class Step:
    """One rule, as seen by a packet; `does` is a verdict, or `jump` or `goto` a chain."""

    met: Met
    does: Literal["accept", "drop", "return", "jump", "goto"]
    chain: str = ""


@dataclass(slots=True)
class Rules:
    """`entries`: the chains that a packet enters by, with what they do at their end."""

    entries: dict[str, Literal["accept", "drop"]] = field(
        default_factory=dict[str, Literal["accept", "drop"]]
    )
    steps: dict[str, list[Step]] = field(default_factory=dict[str, list[Step]])


def fate(rules: Rules) -> Fate:
    """Every chain that a packet enters by has to let it in."""
    fates = {_fate_in(rules, chain, policy) for chain, policy in rules.entries.items()}
    if "dropped" in fates:
        return "dropped"
    return "sometimes" if "sometimes" in fates else "accepted"


def _fate_in(rules: Rules, chain: str, policy: str) -> Fate:
    end, was_let_in = _walk(rules, chain, {})
    if (end or policy) == "accept":
        return "accepted"
    return "sometimes" if was_let_in else "dropped"


def _walk(rules: Rules, chain: str, known: dict[str, tuple[str, bool]]) -> tuple[str, bool]:
    """How a chain ends, empty if it does not decide, and whether it lets in sometimes.

    Each is walked once; one that leads to itself, which no kernel takes, does not decide there.
    """
    if chain not in known:
        known[chain] = "", False
        known[chain] = _through(rules, chain, known)
    return known[chain]


def _through(rules: Rules, chain: str, known: dict[str, tuple[str, bool]]) -> tuple[str, bool]:
    was_let_in = False
    for step in rules.steps.get(chain, ()):
        if step.met == "no":
            continue
        end: str = step.does if step.does in {"accept", "drop"} else ""
        if step.does in {"jump", "goto"}:
            end, inside = _walk(rules, step.chain, known)
            was_let_in |= inside
        if step.met == "sometimes":
            was_let_in |= end == "accept"
        elif end or step.does in {"return", "goto"}:
            return end, was_let_in
    return "", was_let_in


# --- nftables -----------------------------------------------------------------------------------


def read_nft(ruleset: str, packet: Packet) -> Rules:
    """From the output of `nft -j list ruleset`.

    Raises:
        ValueError: it is something else.
    """
    said = json.loads(ruleset)
    listed = said.get("nftables") if _is_table(said) else None
    if not isinstance(listed, list):
        raise ValueError("no list of nftables objects")  # noqa: TRY004 it is what was read
    rules = Rules()
    for one in listed[:RULES_MAX]:
        if not _is_table(one):
            continue
        if _is_table(chain := one.get("chain")) and chain.get("hook") == "input":
            policy: Literal["accept", "drop"] = (
                "drop" if chain.get("policy") == "drop" else "accept"
            )
            rules.entries[_key(chain, "name")] = policy
        if _is_table(rule := one.get("rule")):
            parts = rule.get("expr")
            if isinstance(parts, list):
                steps = rules.steps.setdefault(_key(rule, "chain"), [])
                steps += _nft_steps(rule, parts, packet)
    return rules


def _is_table(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict)


def _key(of: Mapping[str, object], name: str) -> str:
    return f"{of.get('family')} {of.get('table')} {of.get(name)}"


def _nft_steps(rule: Mapping[str, object], parts: Sequence[object], packet: Packet) -> list[Step]:
    """A rule is one step; with a map from values to verdicts, one for each value."""
    met: list[Met] = []
    steps: list[Step] = []
    for part in parts:
        if not _is_table(part):
            continue
        for verb, said in part.items():
            if verb == "match":
                met.append(_nft_met(said, packet))
            elif verb == "vmap" and _is_table(said):
                steps += _mapped(rule, said, met, packet)
            elif verb in {"xt", "vmap", "limit"}:
                met.append("sometimes")
            elif (step := _nft_verdict(rule, verb, said, _all(met))) is not None:
                return [*steps, step]
    return steps


def _nft_verdict(rule: Mapping[str, object], verb: str, said: object, met: Met) -> Step | None:
    if verb.upper() in _VERDICTS:
        return Step(met, _VERDICTS[verb.upper()])
    if verb in {"jump", "goto"} and _is_table(said):
        leads: Literal["jump", "goto"] = "jump" if verb == "jump" else "goto"
        return Step(met, leads, f"{rule.get('family')} {rule.get('table')} {said.get('target')}")
    return None


def _mapped(
    rule: Mapping[str, object], said: Mapping[str, object], met: Sequence[Met], packet: Packet
) -> list[Step]:
    steps: list[Step] = []
    for pair in _values(said.get("data")):
        if not isinstance(pair, list) or len(pair) != 2 or not _is_table(pair[1]):
            continue
        value, verdict = pair
        equal: Met = "sometimes"
        if _is_table(key := said.get("key")):
            equal = _nft_equal(key, value, packet)
        for verb, where in verdict.items():
            if (step := _nft_verdict(rule, verb, where, _all([*met, equal]))) is not None:
                steps.append(step)
    return steps


def _all(met: Iterable[Met]) -> Met:
    found = set(met)
    return "no" if "no" in found else "sometimes" if "sometimes" in found else "yes"


def _nft_met(said: object, packet: Packet) -> Met:
    if not _is_table(said) or not _is_table(left := said.get("left")):
        return "sometimes"
    met = _nft_equal(left, said.get("right"), packet)
    if said.get("op") != "!=" or met == "sometimes":
        return met
    return "no" if met == "yes" else "yes"


def _nft_equal(left: Mapping[str, object], right: object, packet: Packet) -> Met:
    if _is_table(payload := left.get("payload")):
        match payload.get("protocol"), payload.get("field"):
            case ("tcp" | "udp" | "th") as protocol, "dport":
                if protocol not in {"th", packet.protocol}:
                    return "no"
                return _holds_port(right, packet.port)
            case "ip", "protocol":
                return _holds_word(right, packet.protocol)
            case ("tcp" | "udp" | "icmp" | "icmpv6" | "sctp") as protocol, _:
                return "sometimes" if protocol == packet.protocol else "no"
            case _:
                pass
    if _is_table(meta := left.get("meta")):
        match meta.get("key"):
            case "l4proto":
                return _holds_word(right, packet.protocol)
            case "iif" | "iifname":
                return "no" if right == "lo" else "yes"
            case _:
                pass
    if _is_table(tracked := left.get("ct")) and tracked.get("key") == "state":
        return _holds_word(right, "new")
    return "sometimes"


def _values(right: object) -> list[object]:
    if _is_table(right) and isinstance(inside := right.get("set"), list):
        return inside
    return right if isinstance(right, list) else [right]


def _holds_word(right: object, word: str) -> Met:
    values = _values(right)
    if any(not isinstance(value, str) or value.startswith("@") for value in values):
        return "sometimes"
    return "yes" if word in values else "no"


def _holds_port(right: object, port: int) -> Met:
    met: Met = "no"
    for value in _values(right):
        if value == port:
            return "yes"
        if _is_table(value) and isinstance(ends := value.get("range"), list):
            if len(ends) == 2 and all(isinstance(end, int) for end in ends):
                if ends[0] <= port <= ends[1]:
                    return "yes"
                continue
            met = "sometimes"
        elif not isinstance(value, int):
            met = "sometimes"
    return met


# --- iptables -----------------------------------------------------------------------------------


def read_iptables(saved: str, packet: Packet) -> Rules:
    """From the output of `iptables-save`, or `ip6tables-save`; only the table `filter`."""
    rules = Rules()
    table = ""
    for line in saved.splitlines()[:RULES_MAX]:
        words = _words(line)
        if not words:
            continue
        if words[0].startswith("*"):
            table = words[0]
        if table != "*filter":
            continue
        if words[0] == ":INPUT" and len(words) > 1:
            rules.entries["INPUT"] = "drop" if words[1] == "DROP" else "accept"
        if words[0] == "-A" and (step := _iptables_step(words[2:], packet)) is not None:
            rules.steps.setdefault(words[1], []).append(step)
    return rules


def _words(line: str) -> list[str]:
    """As the shell would read them: comments and prefixes of logs are quoted."""
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


def _iptables_step(words: Sequence[str], packet: Packet) -> Step | None:
    met: list[Met] = []
    options = _options(words)
    for name, value, is_negated in options:
        if name in {"-j", "-g"}:
            if value in _VERDICTS:
                return Step(_all(met), _VERDICTS[value])
            return Step(_all(met), "jump" if name == "-j" else "goto", value)
        one = _iptables_met(name, value, packet)
        if is_negated and one != "sometimes":
            one = "no" if one == "yes" else "yes"
        met.append(one)
    return None


def _options(words: Sequence[str]) -> list[tuple[str, str, bool]]:
    found: list[tuple[str, str, bool]] = []
    is_negated = False
    for place, word in enumerate(words):
        if word == "!":
            is_negated = True
        elif word.startswith("-"):
            values = words[place + 1 : place + 2]
            value = values[0] if values and not values[0].startswith(("-", "!")) else ""
            found.append((word, value, is_negated))
            is_negated = False
    return found


def _iptables_met(name: str, value: str, packet: Packet) -> Met:
    match name:
        case "-m" | "--match" | "--comment":
            return "yes"  # it loads a module, whose own options follow
        case "-p" | "--protocol":
            return "yes" if value in {packet.protocol, "all"} else "no"
        case "--dport" | "--dports":
            return "yes" if _holds(value, packet.port) else "no"
        case "--ctstate" | "--state":
            return "yes" if "NEW" in value.split(",") else "no"
        case "-i" | "--in-interface":
            return "no" if value == "lo" else "yes"
        case _:
            return "sometimes"


def _holds(ports: str, port: int) -> bool:
    """Of a list as `22,4000:4999`."""
    for one in ports.split(","):
        low, _, high = one.partition(":")
        if low.isdecimal() and int(low) <= port <= int(high if high.isdecimal() else low):
            return True
    return False


# --- what the firewall services keep in files ---------------------------------------------------


def setting(text: str, name: str) -> str:
    """The value of `NAME=value` or `NAME="value"`, the last of them; empty if there is none."""
    found = re.findall(rf"^\s*{re.escape(name)}\s*=\s*\"?([^\"\n#]*)", text, re.MULTILINE)
    return found[-1].strip() if found else ""


def zone_lets_in(zone: str, packet: Packet) -> bool:
    """Whether a zone of firewalld, as XML, lets `packet` in."""
    if re.search(r"<zone[^>]*\btarget=\"ACCEPT\"", zone):
        return True
    if packet == Packet("udp", 5353) and re.search(r"<service\s+name=\"mdns\"", zone):
        return True
    for port in re.findall(r"<port\s[^>]*>", zone):
        number = re.search(r"\bport=\"([\d-]+)\"", port)
        protocol = re.search(r"\bprotocol=\"(\w+)\"", port)
        if number is None or protocol is None or protocol[1] != packet.protocol:
            continue
        if _holds(number[1].replace("-", ":"), packet.port):
            return True
    return False
