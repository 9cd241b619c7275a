"""``ephemeralml policy``: an operator's days with it, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ephemeralml import cli
from ephemeralml.attestation.appraise import appraise
from ephemeralml.attestation.closed import UNCHECKED
from ephemeralml.attestation.confidential_space.verify import verify as verify_token
from ephemeralml.attestation.nvidia.verify import verify as verify_gpus
from ephemeralml.attestation.policy import TrustPolicy, load_policy
from ephemeralml.attestation.policy_bundle import open_policy_bundle
from ephemeralml.attestation.policy_memory import default_memory
from ephemeralml.attestation.policy_source import BundlePolicy, PolicyInForce, StaticPolicy
from ephemeralml.attestation.policy_store import PolicyStore
from ephemeralml.attestation.simulated import DevelopmentRoot, SimulatedAttester, development_pcrs
from ephemeralml.broker_config.settings import broker_settings
from ephemeralml.producer.cli.common import make_client, policy_source, read_policy, root_key
from ephemeralml.producer.cli.doctor.command import policy_in_force
from ephemeralml.producer.cli.jobs import judging
from ephemeralml.producer.cli.policy_diff import compare, lay_out, show_place
from ephemeralml.producer.cli.policy_propose import _proposal
from ephemeralml.producer.cli.policy_words import span
from ephemeralml.producer.ticket import TicketHead
from ephemeralml.wire.errors import ConfigurationError, Error

from ..attestation.confidential_space import forge as token_forge
from ..attestation.nvidia import forge as gpu_forge
from ..attestation.policy.samples import KEY, ROOT
from ..way.harness import MODEL, Stand

A, B, C = "ab" * 48, "cd" * 48, "ef" * 48
HASH = "0f" * 32


class Desk:
    """A folder, and the command line in it."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.folder, self._patch, self._capsys = folder, monkeypatch, capsys
        monkeypatch.chdir(folder)
        monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
        monkeypatch.delenv("EPHEMERALML_POLICY_ROOT", raising=False)
        monkeypatch.delenv("EPHEMERALML_POLICY", raising=False)
        Path("root.key").write_bytes(KEY.private_bytes_raw())
        Path("root.key").chmod(0o600)
        self.out = self.err = ""

    def run(self, *words: object, group: str = "policy") -> int:
        """Run ``ephemeralml policy`` (or another group) and keep what it printed."""
        self._patch.setattr("sys.argv", ["ephemeralml", group, *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        self.out, self.err = self._capsys.readouterr()
        return int(stop.value.code or 0)

    def ok(self, *words: object) -> str:
        assert self.run(*words) == 0, self.err
        return self.out

    def new(self, name: str, *words: object) -> str:
        """A policy in JSON that wants one Nitro image and one model."""
        registers = ("--nitro-pcr0", A, "--nitro-pcr1", B, "--nitro-pcr2", A)
        self.ok("new", "--out", name, "--version", name, *registers, "--model", f"m={HASH}", *words)
        return name

    def release(self, number: int) -> None:
        """Write, sign and activate a version that is named after its number."""
        self.new(f"{number}.json")
        name = ("--name", "prod") if number == 1 else ()
        self.ok("sign", f"{number}.json", "--key", "root.key", "--store", "store", "--out", number, *name)
        self.ok("activate", number, "--store", "store", "--policy-root", ROOT.hex())


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, monkeypatch, capsys)


def damaged(data: bytes) -> bytes:
    """The same with one bit of its last byte flipped."""
    return data[:-1] + bytes([data[-1] ^ 1])


# ------------------------------------------------------------------- the root


def test_a_root_s_key_is_private_and_never_printed(desk: Desk) -> None:
    public = bytes.fromhex(desk.ok("keygen", "mine.key").strip())
    seed = Path("mine.key").read_bytes()
    assert stat.S_IMODE(Path("mine.key").stat().st_mode) == 0o600
    assert len(seed) == len(public) == 32
    assert seed.hex() not in desk.out + desk.err
    desk.new("p.json")
    said = desk.ok("sign", "p.json", "--key", "mine.key", "--name", "prod", "--out", "p.bundle")
    assert json.loads(said)["policy_root"] == public.hex()
    assert seed.hex() not in desk.out + desk.err
    assert open_policy_bundle(Path("p.bundle").read_bytes(), public).label == "prod#1"


def test_a_key_is_never_overwritten(desk: Desk) -> None:
    before = Path("root.key").read_bytes()
    assert desk.run("keygen", "root.key") == 78
    assert "FILE_EXISTS" in desk.err
    assert Path("root.key").read_bytes() == before


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda path: path.chmod(0o640), "SIGNING_KEY_OPEN"),
        (lambda path: path.write_bytes(b"short"), "SIGNING_KEY_UNUSABLE"),
        (lambda path: path.write_bytes(b"x" * 33), "FILE_TOO_LARGE"),
        (lambda path: path.unlink(), "FILE_UNREADABLE"),
    ],
)
def test_a_key_that_is_not_one_signs_nothing(desk: Desk, spoil: Callable[[Path], Any], code: str) -> None:
    desk.new("p.json")
    spoil(Path("root.key"))
    assert desk.run("sign", "p.json", "--key", "root.key", "--name", "prod", "--out", "out") != 0
    assert code in desk.err
    assert len(desk.err.splitlines()) == 1
    assert not Path("out").exists()


# ------------------------------------------------------------------- new


def test_a_new_policy_is_closed_and_said(desk: Desk) -> None:
    desk.new("p.json", "--nitro-pcr8", "UNCHECKED", "--max-evidence-age", 60)
    made = load_policy(Path("p.json").read_bytes())
    assert made.platforms.nitro[0].registers == {
        **{"pcr0": A, "pcr1": B, "pcr2": A},
        **dict.fromkeys(("pcr3", "pcr4", "pcr8"), UNCHECKED),
    }
    assert made.security_modes == ("production",)
    assert made.max_evidence_age_s == 60
    assert "platforms.nitro[release-1].pcr8 UNCHECKED" in desk.err
    assert desk.run("new", "--out", "p.json", "--version", "1") == 78


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--nitro-pcr0", A), "BAD_POLICY"),
        (("--nitro-pcr0", "xyz"), "BAD_POLICY"),
        (("--nitro-pcr0", "UNCHECKED", "--nitro-pcr1", A, "--nitro-pcr2", "UNCHECKED"), "BAD_POLICY"),
        (("--model", "m"), "BAD_MODEL"),
        (("--model", "m=xyz"), "BAD_POLICY"),
        (("--simulated-root", "xyz"), "BAD_FINGERPRINT"),
        (("--simulated-root", "00"), "BAD_FINGERPRINT"),
        (("--from-evidence", "missing"), "FILE_UNREADABLE"),
        (("--from-evidence", "root.key"), "CBOR"),
        (("--from-evidence", "root.key", "--platform", "none"), "UNKNOWN_PLATFORM"),
        (("--from-announcement", "root.key"), "CBOR"),
    ],
)
def test_what_is_no_policy_is_not_written(desk: Desk, words: tuple[str, ...], code: str) -> None:
    assert desk.run("new", "--out", "p.json", "--version", "1", *words) != 0
    assert code in desk.err
    assert "error" in desk.err
    assert not Path("p.json").exists()


def test_an_empty_policy_says_that_it_accepts_nobody(desk: Desk) -> None:
    desk.ok("new", "--out", "p.json", "--version", "1")
    assert desk.err.count("accepts no worker") == 2


def test_a_policy_from_a_worker_s_announcement_accepts_this_worker(desk: Desk) -> None:
    stand = Stand(desk.folder)
    name = next(iter(stand.blobs.list("announcements/")))
    Path("a").write_bytes(stand.blobs.get(name))
    root = stand.root.fingerprint.hex()
    desk.ok("new", "--out", "p.json", "--version", "1", "--from-announcement", "a", "--simulated-root", root)
    made = read_policy(Path("p.json"))
    assert (made.models[0].id, made.models[0].manifest_hash) == (MODEL.id, MODEL.manifest_hash.hex())
    client = make_client(broker_settings(state_dir=desk.folder / "state"), made)
    client.trust.blobs = stand.blobs
    assert len(client.trust_pool(stand.pool).workers) == 1


def test_a_policy_from_evidence_is_from_genuine_evidence_only(desk: Desk) -> None:
    root = DevelopmentRoot.create()
    document = SimulatedAttester(root, development_pcrs("image")).attest(public_key=b"k" * 32)
    Path("e").write_bytes(document)
    unrooted = ("--from-evidence", "e", "--platform", "simulated", "--set-name", "mine")
    assert desk.run("new", "--out", "p.json", "--version", "1", *unrooted) != 0
    words = (*unrooted, "--simulated-root", root.fingerprint.hex())
    desk.ok("new", "--out", "p.json", "--version", "1", *words)
    simulated = read_policy(Path("p.json")).platforms.simulated
    assert simulated is not None
    assert simulated.measurement_sets[0].name == "mine"
    assert simulated.measurement_sets[0].pcr0 == development_pcrs("image")[0].hex()
    Path("e").write_bytes(damaged(document))
    assert desk.run("new", "--out", "q.json", "--version", "1", *words) == 2


def test_a_proposal_for_confidential_space_accepts_its_token_and_no_other_image() -> None:
    token = verify_token(token_forge.oidc(), token_forge.issuer(), token_forge.NOW)
    wanted = TrustPolicy.model_validate_json(
        json.dumps({"version": "1", "platforms": _proposal([token], "worker-1")})
    )
    assert appraise(token, wanted, token_forge.NOW).measurement_set == "worker-1"
    image = {"submods/container/image_digest": "sha256:" + "ee" * 32}
    other = verify_token(token_forge.oidc(image), token_forge.issuer(), token_forge.NOW)
    with pytest.raises(Error, match="MEASUREMENT_MISMATCH"):
        appraise(other, wanted, token_forge.NOW)


def test_a_proposal_for_gpus_accepts_them_and_demands_them_of_their_cpu() -> None:
    gpus = verify_gpus(
        gpu_forge.make_evidence((gpu_forge.make_report(), gpu_forge.leaf_first(gpu_forge.device()))),
        gpu_forge.endorsements(),
        gpu_forge.NOW,
    )
    token = verify_token(token_forge.oidc(), token_forge.issuer(), token_forge.NOW)
    platforms = _proposal([token, gpus], "r550")
    wanted = TrustPolicy.model_validate_json(json.dumps({"version": "1", "platforms": platforms}))
    assert appraise(gpus, wanted, gpu_forge.NOW, stated_at=gpu_forge.NOW).measurement_set == "r550"
    assert wanted.platforms.required_with("confidential-space") == {"nvidia"}
    assert wanted.platforms.nvidia is not None
    assert (wanted.platforms.nvidia.rim, wanted.platforms.nvidia.ocsp) == ("required", "required")


def test_evidence_of_a_debug_enclave_proposes_nothing(desk: Desk) -> None:
    root = DevelopmentRoot.create()
    zeros = dict.fromkeys(range(16), bytes(48))
    Path("e").write_bytes(SimulatedAttester(root, zeros).attest(public_key=b"k" * 32))
    words = ("--from-evidence", "e", "--platform", "simulated", "--simulated-root", root.fingerprint.hex())
    assert desk.run("new", "--out", "p.json", "--version", "1", *words) == 2
    assert "DEBUG_NOT_ALLOWED" in desk.err


# ------------------------------------------------------------------- versions


def test_a_year_of_versions(desk: Desk) -> None:
    for number in (1, 2, 3):
        desk.release(number)
    assert re.search(r"in force: prod#3, ends in (89|90) days", desk.out)
    root = ("--policy-root", ROOT.hex())
    desk.ok("rollback", 1, "--store", "store", "--key", "root.key", "--out", "back")
    desk.ok("activate", "back", "--store", "store", *root)
    rows = json.loads(desk.ok("history", "--store", "store", "--json", *root))
    assert rows["active"] == 4
    assert [(row["serial"], row["policy"], row["rollback_of"]) for row in rows["versions"]] == [
        *((1, "1.json", None), (2, "2.json", None), (3, "3.json", None), (4, "1.json", 1)),
    ]
    assert "-> prod#4  1.json  (brings back 1)" in desk.ok("history", "--store", "store", *root)
    assert PolicyStore(Path("store"), ROOT).active().policy == load_policy(Path("1.json").read_bytes())
    assert desk.run("activate", 2, "--store", "store", *root) == 2
    assert "POLICY_DOWNGRADE" in desk.err


def test_the_root_can_come_from_the_environment(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.release(1)
    assert desk.run("history", "--store", "store") == 78
    assert "NO_POLICY_ROOT" in desk.err
    monkeypatch.setenv("EPHEMERALML_POLICY_ROOT", ROOT.hex())
    desk.ok("history", "--store", "store")


def test_a_version_can_follow_a_bundle_without_a_store(desk: Desk) -> None:
    desk.new("1.json")
    desk.new("2.json")
    desk.ok("sign", "1.json", "--key", "root.key", "--name", "prod", "--out", "1")
    desk.ok("sign", "2.json", "--key", "root.key", "--previous", "1", "--out", "2", "--days", 10)
    bundle = open_policy_bundle(Path("2").read_bytes(), ROOT)
    stated = bundle.statement
    assert bundle.label == "prod#2"
    assert stated.previous == open_policy_bundle(Path("1").read_bytes(), ROOT).position.digest
    assert stated.expires - stated.not_before == 10 * 86_400


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((), "POLICY_NAME_NEEDED"),
        (("--name", "Bad Name"), "BAD_POLICY_NAME"),
        (("--name", "p", "--begins", "1"), "BAD_BEGINS"),
        (("--name", "p", "--begins", "soon"), "MISUSE"),
        (("--previous", "p.json"), "CBOR"),
        (("--previous", "x", "--store", "y"), "BAD_OPTIONS"),
    ],
)
def test_what_is_not_signed(desk: Desk, words: tuple[str, ...], code: str) -> None:
    desk.new("p.json")
    assert desk.run("sign", "p.json", "--key", "root.key", "--out", "out", *words) != 0
    assert code in desk.err
    assert not Path("out").exists()


def test_a_rollback_needs_its_version(desk: Desk) -> None:
    words = ("--store", "store", "--key", "root.key", "--out", "back")
    assert desk.run("rollback", 1, *words) == 78
    desk.release(1)
    assert desk.run("rollback", 9, *words) == 78
    assert "POLICY_UNKNOWN_SERIAL" in desk.err


def test_a_damaged_history_is_named(desk: Desk) -> None:
    for number in (1, 2):
        desk.release(number)
    path = Path("store/000001.bundle")
    path.write_bytes(damaged(path.read_bytes()))
    assert desk.run("history", "--store", "store", "--policy-root", ROOT.hex()) == 2
    assert "SIG_FAILED" in desk.out
    assert desk.run("history", "--store", "store", "--json", "--policy-root", ROOT.hex()) == 2
    assert json.loads(desk.out)["versions"][0] == {"serial": 1, "sound": False}


def test_a_pointer_that_was_put_back_is_said_with_the_history(desk: Desk) -> None:
    desk.release(1)
    pointer = Path("store/active").read_bytes()
    desk.release(2)
    Path("store/active").write_bytes(pointer)
    assert desk.run("history", "--store", "store", "--policy-root", ROOT.hex()) == 2
    assert "prod#2" in desk.out
    assert "POLICY_DOWNGRADE" in desk.err


# ------------------------------------------------------------------- show


def test_show_says_what_was_checked(desk: Desk) -> None:
    desk.release(1)
    assert "signature    none" in desk.ok("show", "1.json")
    assert "NOT CHECKED" in desk.ok("show", "1")
    for path in ("1", "store"):
        shown = desk.ok("show", path, "--policy-root", ROOT.hex())
        assert "verified under the policy root" in shown
        assert re.search(r"in (89|90) days", shown)
        assert f"models[m {HASH}]" in shown
    assert desk.run("show", "store") == 78
    assert desk.run("show", "1", "--policy-root", "ab" * 32) == 2
    assert desk.run("show", "1", "--policy-root", "ab") == 78
    shown = json.loads(desk.ok("show", "1", "--json", "--policy-root", ROOT.hex()))
    assert (shown["name"], shown["serial"], shown["signature_checked"]) == ("prod", 1, True)
    assert json.loads(desk.ok("show", "1.json", "--json"))["signed"] is False


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 seconds"), (1, "1 second"), (60, "1 minute"), (7200, "2 hours"), (86_400, "1 day")],
)
def test_spans(seconds: int, words: str) -> None:
    assert span(seconds) == words


# ------------------------------------------------------------------- diff

SET = {"name": "r1", "pcr0": A, "pcr1": B, "pcr2": A}
SPACE = {
    "images": [{"name": "i", "image_digest": "sha256:" + HASH}],
    "audience": "me",
    "hwmodels": ["GCP_INTEL_TDX"],
    "service_accounts": ["a@b"],
    "min_swversion": "251001",
    "gpu_cc_mode": "ON",
}
GPU = {"measurement_sets": [], "accept": ["local"], "modes": ["spt"], "required_with": ["nitro"]}
BASE: dict[str, Any] = {
    "version": "1",
    "platforms": {"nitro": [SET], "confidential-space": SPACE, "nvidia": GPU},
    "models": [{"id": "m", "manifest_hash": HASH}],
}


def changed(path: str, value: object) -> TrustPolicy:
    """The base policy with one value replaced (or, by ``...``, left out)."""
    made = json.loads(json.dumps(BASE))
    *parents, last = path.split("/")
    inner: Any = made
    for part in parents:
        inner = inner[int(part)] if part.isdigit() else inner[part]
    if value is ...:
        del inner[last]
    else:
        inner[int(last) if last.isdigit() else last] = value
    return load_policy(json.dumps(made).encode())


N, S, G = "platforms/nitro", "platforms/confidential-space", "platforms/nvidia"


@pytest.mark.parametrize(
    ("path", "value", "verdicts"),
    [
        ("version", "2", "same"),
        (f"{N}/0/pcr1", "UNCHECKED", "looser"),
        (f"{N}/0/pcr8", C, "tighter"),
        (f"{N}/0/pcr0", C, "looser"),
        (f"{N}/0/name", "r2", "looser tighter looser looser looser"),
        (N, [], "tighter"),
        (N, [SET, {**SET, "name": "r2", "pcr8": A}], "looser looser looser"),
        ("models", [], "tighter"),
        ("models", [*BASE["models"], {"id": "m", "manifest_hash": "aa" * 32}], "looser"),
        ("security_modes", ["production", "evaluation"], "looser"),
        ("security_modes", [], "tighter"),
        ("dangerous_allow_debug", True, "looser"),
        ("max_evidence_age_s", 86_401, "looser"),
        ("max_evidence_age_s", 60, "tighter"),
        ("operators", [{"key": HASH, "pools": ["p"]}], "looser"),
        (f"{S}/min_swversion", "251000", "looser"),
        (f"{S}/min_swversion", "251002", "tighter"),
        (f"{S}/min_swversion", "UNCHECKED", "looser"),
        (f"{S}/service_accounts", "UNCHECKED", "looser"),
        (f"{S}/audience", "you", "looser"),
        (f"{S}/hwmodels", ["GCP_INTEL_TDX", "GCP_AMD_SEV"], "looser"),
        (f"{S}/support_attributes", ["STABLE", "LATEST"], "tighter"),
        (f"{S}/support_attributes", ["LATEST"], "looser tighter"),
        (f"{S}/env_overrides", ["X"], "looser"),
        (f"{S}/cmd_override", "UNCHECKED", "looser"),
        (f"{G}/rim", "UNCHECKED", "looser"),
        (f"{G}/min_gpus", 2, "tighter"),
        (f"{G}/required_with", [], "looser"),
        (f"{G}/required_with", ["nitro", "tdx"], "tighter"),
        (G, ..., "tighter looser"),
        (S, ..., "tighter looser"),
    ],
)
def test_every_loosening_is_marked(path: str, value: object, verdicts: str) -> None:
    before, after = load_policy(json.dumps(BASE).encode()), changed(path, value)
    found = compare(before, after)
    assert sorted(change.verdict for change in found) == sorted(verdicts.split())
    assert compare(before, before) == ()


def test_what_was_unchecked_and_is_named_now_is_tighter() -> None:
    open_to_all = changed(f"{S}/service_accounts", "UNCHECKED")
    assert [change.verdict for change in compare(open_to_all, changed("version", "1"))] == ["tighter"]


def test_a_platform_that_comes_says_what_it_leaves_unchecked() -> None:
    found = compare(changed(S, ...), changed(f"{S}/cmd_override", "UNCHECKED"))
    places = [change.place for change in found if change.verdict == "looser"]
    assert places == ["platforms.confidential-space", "platforms.confidential-space.cmd_override"]


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)


@settings(deadline=None)
@given(names, names)
def test_names_cannot_hide_a_change(one: str, other: str) -> None:
    """An entry may be named like a field that narrows; it is an entry all the same."""
    before = changed(f"{N}/0/name", one)
    after = changed(N, [{**SET, "name": one}, {**SET, "name": one + other}])
    assert {change.verdict for change in compare(before, after)} == {"looser"}
    assert all(show_place(place) for place in lay_out(after))


def test_diff_shows_loosenings_first_hand(desk: Desk) -> None:
    Path("a.json").write_text(changed("version", "2").to_json())
    Path("b.json").write_text(changed(f"{N}/0/pcr1", "UNCHECKED").to_json())
    shown = desk.ok("diff", "a.json", "b.json")
    assert f"LOOSER  ~ platforms.nitro[r1].pcr1: {B} -> UNCHECKED" in shown
    assert "1 loosening(s)" in shown
    assert desk.run("diff", "a.json", "b.json", "--check") == 2
    assert "nothing becomes looser" in desk.ok("diff", "b.json", "a.json", "--check")
    assert "they say the same" in desk.ok("diff", "a.json", "a.json")
    changes = json.loads(desk.ok("diff", "a.json", "b.json", "--json"))["changes"]
    assert {"place": "version", "before": "2", "after": "1", "verdict": "same"} in changes


def test_diff_takes_bundles_and_stores(desk: Desk) -> None:
    desk.release(1)
    desk.new("other.json", "--max-evidence-age", 86_401)
    assert desk.run("diff", "store", "other.json", "--check", "--policy-root", ROOT.hex()) == 2
    assert "max_evidence_age_s" in desk.out
    assert desk.run("diff", "1", "1.json", "--check") == 0


# ------------------------------------------------------------------- clients


def head(*, signed: bool) -> TicketHead:
    policy = changed("version", "of the ticket").to_json()
    return TicketHead("p", "reply.x", "xwing", "00" * 32, "m", HASH, 1, policy, signed_policy=signed)


def test_clients_follow_bundles_and_remember(desk: Desk) -> None:
    for number in (1, 2):
        desk.release(number)
    source = policy_source(Path("store"), ROOT.hex())
    assert isinstance(source, BundlePolicy)
    assert source.in_force(time.time()).label == "prod#2"
    assert default_memory().exists()
    with pytest.raises(Error, match="POLICY_DOWNGRADE"):
        policy_source(Path("1"), ROOT.hex())
    assert read_policy(Path("1"), ROOT.hex()).version == "1.json"  # to look at the past is not to go back


def test_a_ticket_is_judged_by_the_policy_in_force(desk: Desk) -> None:
    desk.release(1)
    assert judging(head(signed=False), None, None).current(0).version == "of the ticket"
    source = judging(head(signed=True), Path("store"), ROOT.hex())
    assert source.current(time.time()).version == "1.json"
    with pytest.raises(ConfigurationError, match="POLICY_NEEDED"):
        judging(head(signed=True), None, None)
    with pytest.raises(ConfigurationError, match="POLICY_NOT_SIGNED"):
        judging(head(signed=True), Path("1.json"), None)
    assert isinstance(judging(head(signed=False), Path("1.json"), None), StaticPolicy)


@pytest.mark.parametrize(
    ("found", "verdict", "words"),
    [
        (PolicyInForce(TrustPolicy(version="1"), "1", signed=False), "ok", "unsigned"),
        (
            PolicyInForce(TrustPolicy(version="1"), "p#1", signed=True, expires=1 << 40),
            "ok",
            "signed, ends in",
        ),
        (
            PolicyInForce(TrustPolicy(version="1"), "p#1", signed=True, expires=0),
            "warning",
            "signed, ends in",
        ),
    ],
)
def test_doctor_says_when_a_policy_ends(found: PolicyInForce, verdict: str, words: str) -> None:
    said = policy_in_force(found)
    assert (said.code, said.verdict) == ("POLICY", verdict)
    assert words in said.seen


def test_archived_evidence_is_judged_by_the_bundle_of_its_time(desk: Desk) -> None:
    root = DevelopmentRoot.create()
    document = SimulatedAttester(root, development_pcrs("image")).attest(public_key=b"k" * 32)
    Path("e").write_bytes(document)
    proposed = ("--from-evidence", "e", "--platform", "simulated", "--simulated-root", root.fingerprint.hex())
    desk.ok("new", "--out", "p.json", "--version", "1", *proposed)
    desk.ok("sign", "p.json", "--key", "root.key", "--name", "prod", "--out", "b", "--days", 1)
    words = ("evidence", "e", "--platform", "simulated", "--policy", "b", "--policy-root", ROOT.hex())
    assert desk.run(*words, "--json", group="verify") == 0, desk.err
    assert json.loads(desk.out)["wanted"] is True
    later = int(time.time()) + 2 * 86_400
    assert desk.run(*words, "--at", later, group="verify") == 1
    assert "POLICY_EXPIRED" in desk.err
    assert desk.run(*words[:-1], "ab" * 32, group="verify") == 1
    assert "SIG_FAILED" in desk.err
    assert desk.run(*words[:-2], group="verify") == 1
    assert "NO_POLICY_ROOT" in desk.err


@pytest.mark.parametrize("text", ["xyz", "ab", "ab" * 33])
def test_a_root_that_is_none(text: str) -> None:
    with pytest.raises(ConfigurationError, match="BAD_POLICY_ROOT"):
        root_key(text)


def test_no_root_is_no_root() -> None:
    assert root_key(None) is root_key("") is None
    assert root_key(ROOT.hex()) == ROOT


def test_help_lists_the_commands(desk: Desk) -> None:
    shown = desk.ok("--help")
    for name in ("keygen", "new", "sign", "show", "diff", "activate", "history", "rollback"):
        assert name in shown
    assert os.path.sep not in desk.err
