"""The models of the mesh in clients' lists."""

from kowalski.mesh.peer_facts import PeerFacts
from kowalski.node.http.mesh_models import find, mesh_models, ollama_row, ollama_show
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.telemetry import Model, Profile


def peer(name: str, *models: Model, routable: bool = True) -> PeerFacts:
    profile = Profile(
        boot="b" * 16,
        sequence=1,
        name=name,
        version="0",
        roles=("infer",),
        addresses=(),
        sandbox="none",
        models=models,
    )
    return PeerFacts(
        peer=PeerId(name),
        name=name,
        is_self=False,
        state="member",
        is_routable=routable,
        why_not="",
        addresses=(),
        roles=("infer",),
        rtt_s=None,
        age_s=0.0,
        profile=profile,
        hot=None,
    )


COLD, WARM = Model(name="llama3.2:3b"), Model(name="llama3.2:3b", is_warm=True)
FACTS = (
    peer("a", COLD, Model(name="big", context_tokens=8192, capabilities=("chat", "tools"))),
    peer("b", WARM),
    peer("gone", Model(name="lost"), routable=False),
)


def test_a_model_is_listed_once_with_all_who_have_it_the_loaded_ones_first() -> None:
    models = mesh_models(FACTS)
    told = [(one.name, one.peers, one.warm) for one in models]
    assert told == [("llama3.2:3b", ("a", "b"), ("b",)), ("big", ("a",), ())]


def test_a_model_is_found_by_other_spellings() -> None:
    models = mesh_models(FACTS)
    found = find("Llama-3.2-3B-Instruct", models)
    assert found is not None
    assert found.name == "llama3.2:3b"
    assert find("lost", models) is None


def test_ollamas_rows_have_tags_and_details() -> None:
    small, big = mesh_models(FACTS)
    assert ollama_row(big, 0.0)["name"] == "big:latest"
    assert ollama_row(small, 0.0)["details"]["parameter_size"] == "3B"
    shown = ollama_show(big)
    assert shown["capabilities"] == ["completion", "tools"]
    assert shown["model_info"]["big.context_length"] == 8192
