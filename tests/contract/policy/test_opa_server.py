"""The ways in which a real OPA server lets nobody ask but us, by token or certificate; and what it says to no input."""

from pathlib import Path

import pytest
import trustme

from sandboxd.errors import RuntimeFailed
from sandboxd.model import Verdict
from sandboxd.policy import opa
from sandboxd.policy.document import PolicyInput
from sandboxd.settings.policy import Opa, Policy
from tests.fakes.policy import question
from tests.opa import opa_on_loopback

RULES = 'package sandboxd\nimport rego.v1\ndecision := {"verdict": "allow"}\n'
AUTHORIZATION = 'package system.authz\nimport rego.v1\ndefault allow := false\nallow if input.identity == "s3cret"\n'


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    directory = tmp_path / "bundle"
    directory.mkdir()
    (directory / "p.rego").write_text(RULES)
    return directory


def settings(**server: object) -> Policy:
    return Policy(engine="opa", opa=Opa.model_validate(server), deadline_seconds=60.0)


async def test_a_server_that_wants_a_token_answers_with_the_right_one_alone(bundle: Path, tmp_path: Path) -> None:
    (bundle / "authz.rego").write_text(AUTHORIZATION)
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    with opa_on_loopback("http", [bundle], "--authentication=token", "--authorization=basic") as server:
        engine = await opa.create(settings(url=server.url, token_file=str(token)))
        assert (await engine.decide(question())).verdict is Verdict.ALLOW
        token.write_text("stale\n")
        decision = await engine.decide(question())
        assert (decision.verdict, decision.reasons[0].code) == (Verdict.DENY, "policy_unavailable")
        await engine.close()
        with pytest.raises(RuntimeFailed, match="answers 401 'unauthorized'"):
            await opa.create(settings(url=server.url))


async def test_what_a_server_decides_without_the_input_is_no_decision(bundle: Path) -> None:
    with opa_on_loopback("http", [bundle]) as server:
        engine = await opa.create(settings(url=server.url))
        assert (await engine.decide(question())).verdict is Verdict.ALLOW
        decision = await engine.decide(PolicyInput(b"null"))
        assert (decision.verdict, decision.reasons[0].code) == (Verdict.DENY, "policy_malformed")
        await engine.close()


async def test_a_server_that_wants_a_certificate_answers_to_ours_alone(bundle: Path, tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    for name, host in (("server", "127.0.0.1"), ("client", "sandboxd@client")):
        issued = ca.issue_cert(host)
        issued.cert_chain_pems[0].write_to_path(str(tmp_path / f"{name}.pem"))
        issued.private_key_pem.write_to_path(str(tmp_path / f"{name}.key"))
    arguments = (
        f"--tls-cert-file={tmp_path}/server.pem",
        f"--tls-private-key-file={tmp_path}/server.key",
        f"--tls-ca-cert-file={tmp_path}/ca.pem",
        "--authentication=tls",
    )
    ours = {"certificate": str(tmp_path / "client.pem"), "key": str(tmp_path / "client.key")}
    with opa_on_loopback("https", [bundle], *arguments) as server:
        engine = await opa.create(settings(url=server.url, ca=str(tmp_path / "ca.pem"), **ours))
        assert (await engine.decide(question())).verdict is Verdict.ALLOW
        await engine.close()
        with pytest.raises(RuntimeFailed, match="does not answer"):
            await opa.create(settings(url=server.url, ca=str(tmp_path / "ca.pem")))
        with pytest.raises(RuntimeFailed, match="its certificate was refused"):
            await opa.create(settings(url=server.url, **ours))
