"""One message of every kind, with every field set: what the golden frames decode to.

Never edit an example whose frame was released; a new kind gets a new one.
"""

from __future__ import annotations

from typing import Final

from kowalski.protocol.codec import encode
from kowalski.protocol.ids import Address, ContentHash, MeshId, PeerId, TaskId
from kowalski.protocol.messages import (
    base,
    calls,
    content,
    copies,
    detached,
    explaining,
    folding,
    inference,
    journal,
    membership,
    placement,
    reach,
    rehearsing,
    repl,
    swim,
    task,
    telemetry,
    trust,
    watching,
)

SUBMITTER: Final = PeerId("12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA")
COORDINATOR: Final = PeerId("12D3KooWH3uVF6wv47WnArKHk5p6cvgCJEb74UTmxztmQDc298L3")
WORKER: Final = PeerId("12D3KooWRm8J3iL796zPFi2EtGGtUJn58AG67gcqzMFHZnnsTzqD")
MESH: Final = MeshId("lyyy7dhzzpretiyick4mueznneo626ur")
TASK: Final = TaskId("01JD9ZK3V7Q8M2T4X6B0C1D2E3")
HASH: Final = ContentHash("5e" * 32)
PARENT: Final = ContentHash("0f" * 32)
HOME: Final = (Address("/ip4/192.168.1.7/tcp/4170"), Address("/ip6/fd00::7/tcp/4170"))
BOOT: Final = "00c0ffee00c0ffee"
REF: Final = content.ContentRef(hash=HASH, bytes_total=104_857_600, holders=(SUBMITTER, WORKER))
INPUTS: Final = (repl.Input(name="novel.txt", content=REF),)
WORK_FILES: Final = (repl.WorkFile(name="data/größe.csv", content=REF),)
CLAIM: Final = placement.Claim(submitter=SUBMITTER, priority="interactive", reservation=7)
USAGE: Final = inference.Usage(
    prompt_tokens=1200,
    completion_tokens=345,
    is_estimate=True,
    cached_tokens=1024,
    thinking_tokens=200,
)
ANSWER: Final = repl.AnswerVariable(content="There are 17 of them.", is_ready=True)

CLAIMS: Final = (
    swim.MemberClaim(peer=SUBMITTER, state="alive", incarnation=12),
    swim.MemberClaim(peer=WORKER, state="suspect", incarnation=3, accuser=COORDINATOR),
)

HOT: Final = telemetry.Hot(
    repl=telemetry.Occupancy(running=2, queued=1, slots=8),
    inference=telemetry.Occupancy(running=1, queued=3, slots=1),
    folding=telemetry.Occupancy(running=0, queued=0, slots=4),
    memory_used=0.5,
    cpu_used=0.1,
    tokens_per_s={"qwen3:8b": 41.5, "llama3.2:1b": 100_000.0},
    paused="on battery",
    prompt_tokens_per_s={"qwen3:8b": 812.5},
    condition=telemetry.Condition(
        swap_used=0.25,
        disk_free_bytes=81_604_378_624,
        temperature_c=71.5,
        battery=telemetry.Battery(charge=0.75, is_plugged=False),
        pressure=telemetry.Pressure(cpu=0.125, memory=0.0, io=0.5),
        gpus=(telemetry.GpuUse(busy=0.5, memory_used=0.25, temperature_c=64.0),),
    ),
)

PROFILE: Final = telemetry.Profile(
    boot=BOOT,
    sequence=2**53,
    name="küche",
    version="0.1.0",
    roles=("submit", "repl", "infer"),
    addresses=HOME,
    sandbox="bubblewrap",
    languages=(telemetry.Language(name="python", version="3.12.1"),),
    models=(
        telemetry.Model(
            name="qwen3:8b",
            context_tokens=40_960,
            is_warm=True,
            backend="ollama",
            size_bytes=5_225_388_164,
            capabilities=("chat", "tools"),
        ),
    ),
    cpu="AMD Ryzen 7 7840U",
    cores=16,
    memory_bytes=34_359_738_368,
    system="Linux 6.12 x86_64",
    speed=1.5,
    hot=HOT,
    gpus=(telemetry.Gpu(name="NVIDIA GeForce RTX 4090", memory_bytes=25_757_220_864),),
    disk_bytes=1_000_204_886_016,
)

CERTIFICATE: Final = trust.Certificate(
    mesh=MESH,
    peer=WORKER,
    roles=("submit", "coordinate", "repl", "infer", "fold", "admin"),
    not_after_unix_s=1_795_000_000,
    epoch=3,
)
SIGNED: Final = trust.SignedCertificate(
    frame=encode(CERTIFICATE), root_key=bytes(range(32)), signature=bytes(range(64))
)
ISSUER: Final = trust.Issuer(frame=encode(CERTIFICATE), signature=bytes(range(64)))
SIGNED_BY_ADMIN: Final = SIGNED.model_copy(update={"issuer": ISSUER})
REVOCATION: Final = trust.Revocation(
    mesh=MESH, peer=COORDINATOR, epoch=3, issued_unix_s=1_790_000_000, why="a lost laptop"
)
ROSTER: Final = trust.Roster(
    revocations=(
        trust.SignedRevocation(
            frame=encode(REVOCATION),
            root_key=bytes(range(32)),
            signature=bytes(range(64)),
            issuer=ISSUER,
        ),
    )
)
MEMBERS: Final = (trust.KnownMember(certificate=SIGNED, addresses=HOME),)

SPEC: Final = task.TaskSpec(
    prompt="How often does Ishmael say “sea”?",
    mode="rlm",
    model="qwen3:8b",
    inputs=INPUTS,
    max_iterations=30,
    cell_timeout_s=12.5,
    timeout_s=600.0,
    seed=42,
    priority="interactive",
    failover="queue",
    retry=task.RetryPolicy(retries_max=4, delay_s=0.5, is_exponential=False),
    submitter_gone="abort",
    devices="network",
    budget=task.Budget(calls=200, tokens=1_000_000, depth=2),
    quality=task.Quality(threshold=0.8, patience=2, model="qwen3:8b"),
    shape=task.Shape(json_schema='{"type":"integer"}', tries=5),
    asking=task.Asking(
        drafts=3,
        sub_model="qwen3:8b",
        temperature=0.5,
        reply_tokens=2048,
        answers_once=False,
        fold_model="llama3.2",
    ),
    window_tokens=32_768,
    output_chars=2000,
    side_effects="at_most_once",
)
CELL_STARTED: Final = journal.CellStarted(
    cell=1,
    language="python",
    code="print(context.count('sea'))\n",
    peer=WORKER,
    why="idle, 2 ms away",
)
ENTRY: Final = task.Entry(term=2, index=5, parent=PARENT, body=encode(CELL_STARTED))
DELEGATION: Final = detached.Delegation(
    task=TASK,
    submitter=SUBMITTER,
    group=(SUBMITTER, COORDINATOR, WORKER),
    submitted_unix_s=1_764_331_200,
    spec=SPEC,
    resumes=detached.Resumed(task=TaskId("earlier"), submitter=SUBMITTER),
)

_ALL: Final[tuple[base.Message, ...]] = (
    base.Cancel(is_interrupted=True),
    base.Trace(context="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    base.Failed(code="backend", detail="the model server closed the stream"),
    base.Refused(reason="busy", detail="2 running, 4 queued", retry_after_s=1.5),
    content.ContentAsked(hash=HASH, offset=524_288, bytes_max=524_288),
    content.ContentChunk(data=b"\x00\xff chunk", bytes_total=268_435_456),
    copies.CopyAsked(task=TASK, term=3, submitter=SUBMITTER, start=5, parent=PARENT),
    copies.CopyDropped(task=TASK, term=2, submitter=SUBMITTER),
    copies.CopyFound(task=TASK, entries=(ENTRY,)),
    copies.CopyHeld(task=TASK, entries=6, digest=HASH, has_contents=True),
    copies.CopyOffered(
        task=TASK,
        term=2,
        submitter=SUBMITTER,
        start=5,
        parent=PARENT,
        entries=(ENTRY,),
        inputs=INPUTS,
    ),
    detached.Delegated(frame=encode(DELEGATION), signature=bytes(range(64))),
    DELEGATION,
    detached.DelegationKept(task=TASK, submitter=SUBMITTER),
    detached.LogHeld(task=TASK, term=4, held=6, committed=5),
    detached.LogOffered(
        task=TASK,
        submitter=SUBMITTER,
        term=4,
        base=3,
        start=5,
        parent=PARENT,
        entries=(ENTRY,),
        committed=5,
        retries=2,
        is_leaving=True,
    ),
    detached.VoteAsked(
        task=TASK, submitter=SUBMITTER, term=4, confirmed=3, entries=6, is_trial=True
    ),
    reach.ReachAsked(addresses=HOME),
    reach.ReachTold(
        received_unix_s=1_764_240_000.25, sent_unix_s=1_764_240_000.5, reached=HOME[:1]
    ),
    detached.VoteGiven(task=TASK, term=3, is_granted=True),
    explaining.AppointmentTold(
        age_s=12.5,
        term=2,
        chosen=COORDINATOR,
        why="its coordinator has left",
        candidates=(
            explaining.LeaderTold(
                peer=COORDINATOR, name="minipc", weight=0.9375, score=1.75, is_standby=True
            ),
            explaining.LeaderTold(peer=WORKER, weight=0.5, score=0.25, is_excluded=True),
        ),
    ),
    explaining.DecisionTold(
        age_s=3.5,
        kind="inference",
        language="python",
        model="qwen3:8b",
        units=632.0,
        way="offers",
        chosen=WORKER,
        why="score 0.972: 41 tokens/s",
        expected_s=3.75,
        retry_after_s=0.25,
        candidates=(
            explaining.CandidateTold(
                peer=WORKER,
                name="desktop",
                why="score 0.972: 41 tokens/s",
                score=-0.25,
                is_ready=False,
                running=2,
                queued=1,
                slots=4,
                ours=1,
                memory_used=0.5,
                tokens_per_s=41.5,
                rtt_s=0.0075,
                speed=1.5,
                slowness=1.25,
                unit_s=0.025,
                holds_prefix=True,
                offer=explaining.OfferTold(
                    wait_s=0.25,
                    service_s=3.5,
                    saved_s=1.25,
                    running=2,
                    queued=1,
                    slots=4,
                    cached_tokens=1100,
                    held=2,
                    expected_s=3.75,
                ),
                refused="busy: the line is full",
                retry_after_s=0.25,
            ),
            explaining.CandidateTold(peer=COORDINATOR, why="no model qwen3:8b"),
        ),
    ),
    explaining.ExplainAsked(task=TASK, submitter=SUBMITTER),
    explaining.Explained(task=TASK, appointments=1, decisions=3, forgotten=7, remembers_s=3600.5),
    rehearsing.RehearsalAsked(task=TASK, spec=SPEC),
    rehearsing.Rehearsed(
        task=TASK,
        mode="rlm",
        model="qwen3:8b",
        why="a model, and large inputs",
        obstacle="no_peer",
        detail="no peer runs python",
        decisions=2,
    ),
    folding.FoldAsked(
        text="Call me Ishmael.",
        content=REF,
        budget_tokens=1000,
        question="Who is speaking?",
        remaining_s=9.75,
        claim=CLAIM,
    ),
    folding.FoldDone(
        text="Ishmael.",
        content=REF,
        source_tokens=5,
        tokens=2,
        algorithm="density",
        held_s=0.25,
        hot=HOT,
    ),
    inference.CompletionAsked(
        task=TASK,
        term=2,
        model="qwen3:8b",
        messages=(
            inference.ChatMessage(
                role="assistant",
                content="I shall look.",
                tool_calls=(
                    inference.ToolCall(id="call_1", name="count", arguments='{"word":"sea"}'),
                ),
                tool_call="call_0",
                images=(0,),
            ),
            inference.ChatMessage(role="tool", content="455", tool_call="call_1"),
            inference.ChatMessage(role="system", content="Be brief."),
            inference.ChatMessage(role="user", content="How many?"),
        ),
        images=(inference.Image(data=b"\x89PNG", content=REF),),
        prompt="There are",
        max_tokens=512,
        temperature=0.5,
        sampling=inference.Sampling(
            seed=42,
            stop=("\n\n", "END"),
            top_p=0.95,
            top_k=40,
            min_p=0.05,
            presence_penalty=-0.5,
            frequency_penalty=0.25,
            repeat_penalty=1.125,
        ),
        tools=(
            inference.Tool(
                name="count",
                description="Counts a word.",
                parameters='{"type":"object","properties":{"word":{"type":"string"}}}',
            ),
        ),
        tool_choice="required",
        tool_named="count",
        calls_in_parallel=False,
        json_schema='{"type":"integer"}',
        logprobs=2,
        thinking="low",
        so_far="There are sev",
        call="turn-3",
        remaining_s=60.0,
        claim=CLAIM,
    ),
    inference.CompletionDelta(
        text="Sev\N{COMBINING DIAERESIS}enteen 🐋",
        thinking="A whale is no fish.",
        tool_calls=(inference.ToolCallPiece(index=1, id="call_2", name="count", arguments='{"wo'),),
        logprobs=(
            inference.Logprob(
                token="🐋",
                logprob=-0.25,
                utf8=b"\xf0\x9f",
                alternatives=(inference.TokenLogprob(token=" sea", logprob=-1.5, utf8=b" sea"),),
            ),
        ),
    ),
    inference.CompletionDone(
        model="qwen3:8b",
        finish_reason="stop",
        usage=USAGE,
        backend="llama-server",
        load_s=0.5,
        prompt_s=0.25,
        generation_s=0.375,
        held_s=1.125,
        hot=HOT,
    ),
    inference.CompletionsAsked(
        task=TASK,
        term=2,
        model="qwen3:8b",
        prompts=("Is this a whale? A 🐋", "And this?"),
        max_tokens=16,
        temperature=0.25,
        sampling=inference.Sampling(seed=42, stop=("END",)),
        calls=("cell-0-7b-0", "cell-0-7c-1"),
        remaining_s=30.0,
        claim=CLAIM,
    ),
    inference.CompletionsTold(
        answers=(
            inference.OneCompletion(slot=0, text="It is.", usage=USAGE, duration_s=0.125),
            inference.OneCompletion(
                slot=1, code="busy", detail="all its slots are taken", is_refused=True
            ),
        ),
    ),
    inference.CompletionsDone(
        model="qwen3:8b", answered=2, usage=USAGE, backend="ollama", held_s=0.25, hot=HOT
    ),
    calls.CallsSought(task=TASK, term=2, submitter=SUBMITTER),
    calls.CallsHeld(calls=("turn-3", "cell-0-7b-0")),
    inference.EmbeddingsAsked(
        task=TASK,
        term=2,
        model="nomic-embed-text",
        texts=("whale", "sea"),
        dimensions=2,
        remaining_s=30.0,
        claim=CLAIM,
    ),
    inference.EmbeddingsDone(
        model="nomic-embed-text",
        dimensions=2,
        usage=USAGE,
        backend="ollama",
        held_s=0.125,
        hot=HOT,
    ),
    inference.TokensAsked(model="llama3.2:3b", texts=("whale", "sea"), remaining_s=5.0),
    inference.TokensCounted(
        model="llama3.2:3b", counts=(2, 1), is_estimate=True, backend="ollama", held_s=0.125
    ),
    inference.EmbeddingsPiece(vectors=bytes(range(16))),
    inference.ModelProgress(
        stage="downloading", detail="sha256:5e5e", bytes_done=2**20, bytes_total=2**31
    ),
    inference.ModelReady(
        model="llama3.2:3b", backend="ollama", detail="2.0 GB", held_s=61.5, hot=HOT
    ),
    inference.LoadAsked(
        model="mlx-community/Llama-3.3-70B-Instruct-4bit",
        backend="exo",
        sharding="tensor",
        devices_min=2,
        remaining_s=600.0,
    ),
    inference.UnloadAsked(model="llama3.2:3b", backend="ollama", deletes=True, remaining_s=30.0),
    inference.ModelGone(model="llama3.2:3b", backend="ollama", held_s=0.25),
    inference.PreviewsAsked(model="qwen3:235b", backend="exo", remaining_s=5.0),
    inference.Previews(
        model="qwen3:235b",
        options=(
            inference.Preview(
                sharding="pipeline",
                link="ring",
                devices=2,
                bytes_max=2**36,
                is_chosen=True,
                why_not="no RDMA",
            ),
        ),
        explanation="split by layers over 2 devices",
        held_s=0.125,
    ),
    inference.CatalogueAsked(query="llama", remaining_s=5.0),
    inference.CatalogueTold(
        models=(
            inference.Listed(
                name="llama3.2:3b",
                backend="ollama",
                state="cold",
                context_tokens=131_072,
                size_bytes=2_019_393_189,
                slots=1,
                running=1,
                tokens_per_s=41.5,
                prompt_tokens_per_s=812.5,
                capabilities=("chat", "tools"),
            ),
        ),
        left_out=17,
        can_pull=True,
        held_s=0.25,
    ),
    inference.PullAsked(
        model="llama3.2:3b", backend="ollama", is_on_demand=True, remaining_s=3600.0
    ),
    journal.BudgetSpent(limit="iterations", detail="30 of 30"),
    journal.CellDiverged(
        cell=3, language="python", peer=WORKER, names=("now",), detail="1 of 4 variables differ"
    ),
    journal.ChildHappened(cell=1, ordinal=2, question=HASH, event=encode(CELL_STARTED)),
    journal.CancelHeard(reason="the owner pressed Ctrl-C"),
    journal.CellFailed(cell=3, code="unsupported", detail="no peer speaks cobol"),
    journal.CellFinished(
        cell=1,
        peer=WORKER,
        status="error",
        output="Traceback …",
        output_bytes=1_000_000,
        full=REF,
        files=WORK_FILES,
        answer=ANSWER,
        variables_digest="ab" * 32,
        variables=(repl.Variable(name="x", digest="01234567"),),
        clock=(1_795_000_000_500_000,),
        exit_code=-9,
        is_session_alive=False,
        duration_s=0.75,
    ),
    CELL_STARTED,
    journal.Closed(outcome="answered", answer="17", full=REF, score=0.75, detail="after 3 turns"),
    journal.Folded(
        text="[turns 1 to 4 folded]",
        original=REF,
        source_tokens=90_000,
        tokens=900,
        peer=WORKER,
        calls=3,
        attempts=4,
        usage=inference.Usage(prompt_tokens=9000, completion_tokens=600, cached_tokens=12),
    ),
    journal.ModelFailed(call=4, code="timeout", detail="no reply within 60 s", attempts=3),
    journal.ModelReplied(
        call=3,
        text="```python\nprint(1)\n```",
        model="qwen3:8b",
        peer=WORKER,
        usage=USAGE,
        attempts=2,
        duration_s=3.5,
    ),
    journal.Opened(mode="rlm", model="qwen3:8b", seed=42, why="the context is long"),
    journal.SubCallAnswered(
        cell=1,
        ordinal=2,
        prompt=HASH,
        model="qwen3:8b",
        peer=WORKER,
        kind="rlm",
        text="a whale",
        error="cut short",
        code="timeout",
        is_repeated=True,
        usage=USAGE,
        attempts=3,
        duration_s=1.5,
    ),
    journal.SubCallsAnswered(
        answers=(
            journal.SubCallAnswered(
                cell=1,
                ordinal=3,
                prompt=HASH,
                model="qwen3:8b",
                peer=WORKER,
                text="a whale",
                usage=USAGE,
                attempts=1,
                duration_s=0.125,
            ),
            journal.SubCallAnswered(cell=1, ordinal=4, prompt=HASH, is_repeated=True),
        ),
    ),
    membership.Hello(
        certificate=SIGNED,
        boot=BOOT,
        name="küche",
        addresses=HOME,
    ),
    membership.Ready(members=MEMBERS, profile=PROFILE, roster=ROSTER, incarnation=7),
    membership.RoundTrip(),
    membership.Welcome(
        certificate=SIGNED,
        boot=BOOT,
        name="laptop",
        addresses=HOME,
        members=MEMBERS,
        profile=PROFILE,
        roster=ROSTER,
        incarnation=12,
    ),
    placement.Offer(
        reservation=7,
        wait_s=0.25,
        service_s=3.5,
        saved_s=1.25,
        running=2,
        queued=1,
        slots=4,
        memory_used=0.5,
        tokens_per_s=41.5,
        cached_tokens=1100,
        held=(0, 2),
        hot=HOT,
    ),
    placement.OfferAsked(
        kind="inference",
        language="python",
        model="qwen3:8b",
        claim=CLAIM,
        prompt_tokens=1200,
        max_tokens=512,
        prefixes=("0001020304050607", "ff" * 8),
        content=(HASH, PARENT),
        reserve_s=2.0,
        remaining_s=60.0,
    ),
    repl.CellAsked(
        task=TASK,
        term=2,
        cell=4,
        language="python",
        code="x = llm_query('?')",
        inputs=INPUTS,
        after=(1, 2, 3),
        past=HASH,
        keeps_session=False,
        name="sum.py",
        arguments=("--fast", "größe"),
        stdin=REF,
        files=WORK_FILES,
        wants_files=False,
        seed=42,
        clock=(1_795_000_000_500_000, 1_795_000_001_000_000),
        timeout_s=30.0,
        remaining_s=480.5,
        claim=CLAIM,
        is_bound=True,
    ),
    repl.CellDone(
        task=TASK,
        cell=4,
        status="output_flood",
        stdout="0\n1\n",
        stderr="warning",
        stdout_bytes=200_000_000,
        stderr_bytes=7,
        full=REF,
        value="'17'",
        error="KeyboardInterrupt",
        answer=ANSWER,
        variables_digest="ab" * 32,
        variables=(repl.Variable(name="x", digest="01234567"),),
        clock=(1_795_000_000_500_000,),
        files=WORK_FILES,
        files_omitted=3,
        exit_code=137,
        is_session_alive=True,
        duration_s=30.0,
        held_s=30.5,
        hot=HOT,
    ),
    repl.CellOutput(stream="stderr", data=b"\xff\x00 not UTF-8"),
    repl.SessionClosed(task=TASK, term=2, submitter=SUBMITTER),
    repl.SubCallsAnswered(
        batch=1,
        left=2,
        results=(
            repl.SubCallResult(text="a whale"),
            repl.SubCallResult(error="no model", code="no_peer"),
        ),
    ),
    repl.SubCallsAsked(
        batch=1,
        calls=(
            repl.SubCall(prompt="What is it?", model="qwen3:8b"),
            repl.SubCall(kind="unfold", prompt=HASH),
        ),
    ),
    swim.ClaimsHeard(claims=CLAIMS),
    swim.ClaimsTold(claims=CLAIMS),
    swim.HelpAnswered(has_reached=True, claims=CLAIMS),
    swim.HelpAsked(target=WORKER, within_s=0.5, claims=CLAIMS),
    swim.Probe(claims=CLAIMS),
    swim.ProbeAnswered(claims=CLAIMS),
    swim.SyncAnswered(digest="0123456789abcdef", rows=CLAIMS, members=MEMBERS),
    swim.SyncAsked(digest="0123456789abcdef"),
    task.Accepted(task=TASK, term=2, index=5, digest=HASH),
    task.Announced(
        boot=BOOT,
        sequence=17,
        tasks=(
            task.TaskHeadline(
                task=TASK,
                submitter=SUBMITTER,
                term=2,
                state="running",
                coordinator=COORDINATOR,
                mode="rlm",
                entries=6,
                head="How often does Ishmael say “sea”?",
                submitter_name="laptop",
                age_s=12.5,
            ),
        ),
    ),
    task.CancelTask(task=TASK, term=2, reason="the owner pressed Ctrl-C"),
    task.EntryOffered(task=TASK, entry=ENTRY),
    task.Grant(
        task=TASK,
        term=2,
        spec=SPEC,
        prefix_entries=5,
        last_digest=PARENT,
        standbys=(SUBMITTER, WORKER),
        holders=(WORKER,),
        lease_s=3.0,
        remaining_s=590.25,
        submitter=SUBMITTER,
    ),
    task.Prefix(task=TASK, start=5, entries=(ENTRY,)),
    task.PrefixAsked(task=TASK, term=2, start=5),
    task.Progress(
        task=TASK,
        term=2,
        kind="cell_output",
        peer=WORKER,
        cell=1,
        language="python",
        text="17\n",
        why="idle, 2 ms away",
    ),
    task.Renewal(task=TASK, term=2, lease_s=3.0, remaining_s=589.25),
    task.Settle(task=TASK, term=2),
    task.Settled(task=TASK, term=2),
    telemetry.HotDelta(boot=BOOT, sequence=17, hot=HOT.model_copy(update={"is_draining": True})),
    PROFILE,
    telemetry.RoundTrips(
        boot=BOOT,
        sequence=18,
        paths=(telemetry.RoundTripTo(peer=WORKER, smooth_s=0.0125, least_s=0.0009, jitter_s=0.25),),
    ),
    CERTIFICATE,
    trust.InviteProven(proof=bytes(32), name="laptop"),
    trust.JoinAsked(invite=bytes(range(16)), nonce=bytes(range(32))),
    trust.JoinGranted(certificate=SIGNED_BY_ADMIN, members=MEMBERS),
    trust.MeshProven(
        root_key=bytes(range(32)), signature=bytes(range(64)), nonce=bytes(16), issuer=ISSUER
    ),
    trust.RenewalAsked(),
    REVOCATION,
    ROSTER,
    watching.CancelAsked(task=TASK, submitter=SUBMITTER, reason="the owner pressed Ctrl-C"),
    watching.ResumeAsked(task=TASK, submitter=SUBMITTER, timeout_s=60.0, max_iterations=9),
    watching.TraceAsked(task=TASK, submitter=SUBMITTER),
    watching.Traced(task=TASK, lines=("0.000 Submitted", "0.001 GrantTerm 1")),
    watching.WatchAsked(task=TASK, submitter=SUBMITTER, start=3, is_following=False),
    watching.WatchOpened(
        task=TASK,
        submitter=SUBMITTER,
        submitter_name="laptop",
        spec=SPEC,
        age_s=3.5,
        kept_by=(SUBMITTER, COORDINATOR, WORKER),
    ),
    watching.WatchSeen(
        task=TASK,
        state="answered",
        term=2,
        coordinator=COORDINATOR,
        why="its coordinator has left",
        entries=(ENTRY,),
        progress=task.Progress(task=TASK, term=2, kind="delta", text="Call me"),
        answer=journal.Closed(outcome="answered", answer="17"),
    ),
)

EXAMPLES: Final[dict[str, base.Message]] = {message.KIND: message for message in _ALL}
