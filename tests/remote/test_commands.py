"""Commands with addresses in the place of files: inputs, outputs, what they leave and what they say."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from blendrun.store.folder import StateFolder
from tests.command import REPLAY, blendrun, ids, line, lines_of
from tests.remote.object_server import Fault, Objects, read_then_die, redirect, status

SECRETS = ("5ec2e7f00d", "w0rd-of-mine", "AKIAEXAMPLE")
SIGNED = "?X-Amz-Credential=AKIAEXAMPLE%2F20260101&X-Amz-Signature=5ec2e7f00d"
JOBS = b"".join(line(f"id {row}", f"question {row}") + b"\n" for row in range(20))
BAD = line("bad", "x", url="/v1/none") + b"\n"


@pytest.fixture(autouse=True)
def jobs(objects: Objects) -> None:
    objects.files["/in/jobs.jsonl"] = JOBS


def signed(objects: Objects, path: str) -> str:
    return f"{objects.url.replace('//', '//me:w0rd-of-mine@')}{path}{SIGNED}"


def assert_no_secrets(folder: Path, *texts: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            assert not any(secret.encode() in path.read_bytes() for secret in SECRETS), path
    for text in texts:
        assert not any(secret in text for secret in SECRETS), text


def puts(objects: Objects) -> list[str]:
    return [each.path.partition("?")[0] for each in objects.asked if each.method == "PUT"]


def test_an_address_in_and_an_address_out(objects: Objects, tmp_path: Path) -> None:
    objects.files["/in/more.jsonl.gz"] = gzip.compress(BAD)
    words = ("run", signed(objects, "/in/jobs.jsonl"), f"{objects.url}/in/more.jsonl.gz", *REPLAY)
    outs = ("-o", signed(objects, "/out/answers.jsonl"), "--upload-errors", signed(objects, "/out/failed.jsonl"))
    extras = ("--metrics-textfile", "m.prom", "--trace", "t.json", "-v")
    done = blendrun(*words, *outs, *extras, cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert ids(tmp_path / "answers.jsonl") == [f"id {row}" for row in range(20)]
    assert objects.files["/out/answers.jsonl"] == (tmp_path / "answers.jsonl").read_bytes()
    assert objects.files["/out/failed.jsonl"] == (tmp_path / "answers.jsonl.errors.jsonl").read_bytes()
    assert lines_of(tmp_path / "answers.jsonl.errors.jsonl")[0]["custom_id"] == "bad"
    state = StateFolder(tmp_path / "answers.jsonl")
    summary, told = json.loads(state.summary.read_bytes()), json.loads(state.status.read_bytes())
    assert summary["inputs"] == [f"{objects.url}/in/jobs.jsonl?…", f"{objects.url}/in/more.jsonl.gz"]
    assert (told["status"], told["blendrun"]["exit_code"], told["blendrun"]["phase"]) == ("completed", 3, "end")
    sent = json.loads(state.uploads.read_bytes())
    assert [(each["name"], each["address"]) for each in sent] == [
        ("output", f"{objects.url}/out/answers.jsonl?…"),
        ("errors", f"{objects.url}/out/failed.jsonl?…"),
    ]
    assert_no_secrets(tmp_path, done.stdout, done.stderr)
    # Once more: nothing is sent a second time, by another signature neither.
    again = blendrun(*words, *(word.replace("5ec2e7f00d", "fresh") for word in outs), cwd=tmp_path)
    assert again.returncode == 3, again.stderr
    assert puts(objects) == ["/out/answers.jsonl", "/out/failed.jsonl"]


def test_the_errors_go_beside_where_no_signature_is_needed(objects: Objects, tmp_path: Path) -> None:
    objects.files["/in/jobs.jsonl"] += BAD
    words = ("run", f"{objects.url}/in/jobs.jsonl", *REPLAY, "-o", "here.jsonl", "--upload")
    assert blendrun(*words, f"{objects.url}/out.jsonl", cwd=tmp_path).returncode == 3
    assert puts(objects) == ["/out.jsonl", "/out.jsonl.errors.jsonl"]
    assert (tmp_path / "here.jsonl").read_bytes() == objects.files["/out.jsonl"]
    # Elsewhere, signed: the errors stay, and that is said.
    done = blendrun(*words, signed(objects, "/out2.jsonl"), cwd=tmp_path)
    assert "here.jsonl.errors.jsonl stays here: --upload-errors names an address for it" in done.stderr
    assert puts(objects)[2:] == ["/out2.jsonl"]


@pytest.mark.parametrize(
    ("faults", "code"),
    [
        ([status(500)], 0),
        ([status(503, headers={"Retry-After": "0"}), status(429)], 0),
        ([read_then_die(100)], 0),
        ([read_then_die(None), read_then_die(0)], 0),
        ([redirect(307, "/elsewhere.jsonl")], 0),
        ([status(201)], 0),
        ([status(403, b"<Code>SignatureDoesNotMatch</Code>5ec2e7f00d")], 73),
        ([status(404)], 73),
        ([status(411)], 73),
        ([redirect(303, "/elsewhere.jsonl")], 73),
        ([status(500)] * 7, 73),
        ([redirect(307, "/out.jsonl")] * 6, 73),
    ],
)
def test_an_upload_that_fails(objects: Objects, tmp_path: Path, faults: list[Fault], code: int) -> None:
    # Of the input nothing fails.
    words = ("run", f"{objects.url}/in/jobs.jsonl", *REPLAY, "-o", signed(objects, "/out.jsonl"))
    objects.faults.extend([None, *faults])
    done = blendrun(*words, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert_no_secrets(tmp_path, done.stdout, done.stderr)
    state = StateFolder(tmp_path / "out.jsonl")
    assert json.loads(state.summary.read_bytes())["status"] == "completed"
    assert ids(state.output) == [f"id {row}" for row in range(20)]
    if code:
        assert f"cannot upload to {objects.url}/out.jsonl?…: it " in done.stderr
        assert "it lies in out.jsonl, and the same command sends it, without asking an engine again" in done.stderr
        told = json.loads(state.status.read_bytes())
        assert (told["status"], told["blendrun"]["exit_code"]) == ("failed", 73)
        before, count = state.journal.stat(), len(objects.asked)
        objects.faults.clear()
        again = blendrun(*words, cwd=tmp_path)
        assert again.returncode == 0, again.stderr
        assert "phase=run" not in again.stderr
        assert state.journal.stat().st_mtime_ns == before.st_mtime_ns
        assert [each.method for each in objects.asked[count:]] == ["GET", "PUT"]
        told = json.loads(state.status.read_bytes())
        assert (told["status"], told["blendrun"]["exit_code"]) == ("completed", 0)
        assert told["request_counts"] == {"total": 20, "completed": 20, "failed": 0}
    accepted = [path for path in ("/out.jsonl", "/elsewhere.jsonl") if path in objects.files]
    assert accepted or faults[0] is not None
    for path in accepted:
        assert objects.files[path] == state.output.read_bytes()
    count = len(puts(objects))
    assert blendrun(*words, cwd=tmp_path).returncode == 0
    assert len(puts(objects)) == count


def test_only_what_did_not_arrive_is_sent_again(objects: Objects, tmp_path: Path) -> None:
    objects.files["/in/jobs.jsonl"] += BAD
    words = ("run", f"{objects.url}/in/jobs.jsonl", *REPLAY, "-o", f"{objects.url}/out.jsonl")
    objects.faults.extend([None, None, status(403)])
    assert blendrun(*words, cwd=tmp_path).returncode == 73
    assert blendrun(*words, cwd=tmp_path).returncode == 3
    assert puts(objects) == ["/out.jsonl", "/out.jsonl.errors.jsonl", "/out.jsonl.errors.jsonl"]


def test_another_content_is_sent_and_the_same_to_another_address(objects: Objects, tmp_path: Path) -> None:
    words = ("run", f"{objects.url}/in/jobs.jsonl", *REPLAY, "-o", "a.jsonl", "--upload", f"{objects.url}/out.jsonl")
    assert blendrun(*words, "--limit", "5", cwd=tmp_path).returncode == 0
    assert blendrun(*words, cwd=tmp_path).returncode == 0
    assert blendrun(*words[:-1], f"{objects.url}/other.jsonl", cwd=tmp_path).returncode == 0
    assert puts(objects) == ["/out.jsonl", "/out.jsonl", "/other.jsonl"]
    assert objects.files["/out.jsonl"] == objects.files["/other.jsonl"] == (tmp_path / "a.jsonl").read_bytes()
    assert blendrun(*words, "--no-resume", cwd=tmp_path).returncode == 0
    assert puts(objects)[3:] == ["/out.jsonl"]


def test_an_input_that_changed_is_refused_as_any_other(objects: Objects, tmp_path: Path) -> None:
    words = ("run", signed(objects, "/in/jobs.jsonl"), *REPLAY)
    assert blendrun(*words, cwd=tmp_path).returncode == 0
    assert ids(tmp_path / "jobs.jsonl.answers.jsonl".replace(".jsonl.answers", ".answers"))
    objects.files["/in/jobs.jsonl"] = JOBS.replace(b"question 3", b"question three")
    done = blendrun(*words, cwd=tmp_path)
    assert done.returncode == 78
    assert_no_secrets(tmp_path, done.stderr)
    assert blendrun(*words, "--accept-changes", cwd=tmp_path).returncode == 0
    # The copies of what is no input any more are gone.
    (tmp_path / "local.jsonl").write_bytes(JOBS)
    output = tmp_path / "jobs.answers.jsonl"
    assert blendrun("run", "local.jsonl", *REPLAY, "-o", output, "--no-resume", cwd=tmp_path).returncode == 0
    assert list((StateFolder(output).spool / "fetched").iterdir()) == []


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (status(404), 66, "is not there: the server answered 404; check the address"),
        (status(403), 66, "is refused: the server answered 403; is its signature still good"),
        (redirect(302, "file:///etc/passwd"), 66, "is redirected to file, which is not followed"),
        (status(200, b"<html>sign in</html>"), 65, "is a page of HTML or XML"),
        (status(200, b""), 65, "holds no request"),
        (status(200, gzip.compress(JOBS)[:100]), 65, "ends in the middle of its gzip data"),
    ],
)
@pytest.mark.parametrize("command", [("run", *REPLAY), ("plan", "--model", "llama-3-8b")])
def test_an_input_that_cannot_be_had(
    objects: Objects, tmp_path: Path, command: tuple[str, ...], fault: Fault, code: int, said: str
) -> None:
    objects.faults.append(fault)
    done = blendrun(command[0], signed(objects, "/in/jobs.jsonl"), *command[1:], cwd=tmp_path)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert_no_secrets(tmp_path, done.stderr)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("-o", "ftp://h/x?sig=5ec2e7f00d"), 2, "ftp://… is an address; write to a file"),
        (("-o", "https://h:port/x?sig=5ec2e7f00d"), 2, "cannot be read; is it whole?"),
        (("-o", "https://h/x?sig=5ec2e7f00d", "--upload", "https://h/y"), 2, "or leave one out"),
        (("--upload", "answers.jsonl"), 2, "--upload takes an address"),
        (("--upload-errors", "https://h/x"), 2, "--upload-errors goes with --upload"),
        (("-o", "https://h/x?sig=5ec2e7f00d", "--shard", "1/2"), 2, "a shard's answers are merged here"),
        (("--trace", "https://h/x?sig=5ec2e7f00d"), 2, "is an address; write to a file"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_asked(
    objects: Objects, tmp_path: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    done = blendrun("run", f"{objects.url}/in/jobs.jsonl", *REPLAY, *words, cwd=tmp_path)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert_no_secrets(tmp_path, done.stderr)
    assert objects.asked == []
    assert list(tmp_path.iterdir()) == []


def test_the_same_address_twice_is_one_file(objects: Objects, tmp_path: Path) -> None:
    address = signed(objects, "/in/jobs.jsonl")
    done = blendrun("run", address, address.replace("5ec2e7f00d", "other"), *REPLAY, cwd=tmp_path)
    assert done.returncode == 2
    assert "is given twice" in done.stderr


@pytest.mark.parametrize("command", ["merge", "answers", "status", "report"])
def test_commands_that_look_at_a_run_want_its_file_here(command: str, tmp_path: Path) -> None:
    done = blendrun(command, "https://h/answers.jsonl?sig=5ec2e7f00d", cwd=tmp_path)
    assert done.returncode == 2
    assert "https://… is an address; give the file here that was sent there" in done.stderr
    assert_no_secrets(tmp_path, done.stderr)


def test_a_plan_and_a_bench_of_an_address(objects: Objects, tmp_path: Path) -> None:
    words = (
        signed(objects, "/in/jobs.jsonl"),
        "--model",
        "smollm2-135m",
        "--orders",
        "given",
        "--overlap",
        "exclusive",
    )
    done = blendrun("plan", *words, "--report", "p.html", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_no_secrets(tmp_path, done.stdout, done.stderr)
    bench = blendrun("bench", "simulate", *words, "--json", cwd=tmp_path)
    assert bench.returncode == 0, bench.stderr
    assert_no_secrets(tmp_path, bench.stdout, bench.stderr)


def test_addresses_in_a_config_file(objects: Objects, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f"output: {signed(objects, '/out.jsonl')}\n")
    done = blendrun("run", f"{objects.url}/in/jobs.jsonl", *REPLAY, "--config", "c.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert puts(objects) == ["/out.jsonl"]


def test_run_batch_from_an_address_to_an_address(objects: Objects, tmp_path: Path) -> None:
    objects.files["/in/jobs.jsonl.gz"] = gzip.compress(JOBS[:-1] + b"\n\n" + BAD)
    files = ("-i", signed(objects, "/in/jobs.jsonl.gz"), "-o", signed(objects, "/out/results.jsonl"))
    words = ("run-batch", *files, "--model", "x", "--engine", "replay", "--output-tmp-dir", "/tmp/x")
    objects.faults.extend([None, status(403)])
    done = blendrun(*words, cwd=tmp_path)
    assert done.returncode == 73, done.stderr
    assert "it lies in results.jsonl, and the same command sends it, without asking an engine again" in done.stderr
    assert_no_secrets(tmp_path, done.stderr)
    done = blendrun(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    sent = objects.files["/out/results.jsonl"]
    assert sent == (tmp_path / "results.jsonl").read_bytes()
    assert ids(tmp_path / "results.jsonl") == [*(f"id {row}" for row in range(20)), "bad"]
    assert blendrun(*words, cwd=tmp_path).returncode == 0
    assert puts(objects) == ["/out/results.jsonl"] * 2
    # The input was asked after once a command, and fetched once.
    assert [each.headers.get("If-None-Match") is None for each in objects.asked if each.method == "GET"] == [
        True,
        False,
        False,
    ]


def test_run_batch_of_an_empty_file_at_an_address(objects: Objects, tmp_path: Path) -> None:
    objects.files["/empty.jsonl"] = b""
    words = ("-i", f"{objects.url}/empty.jsonl", "-o", f"{objects.url}/out.jsonl", "--model", "x", "--engine", "replay")
    done = blendrun("run-batch", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert objects.files["/out.jsonl"] == b""
