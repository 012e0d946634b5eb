"""The bundle tool as a person and a script use it: keygen, build, sign, inspect, verify."""

import json
import os
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from scripts.bundle_tool import __main__ as cli
from scripts.bundle_tool import tufrepo
from scripts.bundle_tool.build import BuildError, parse_source
from scripts.bundle_tool.keys import (
    KeyFileError,
    load_private_key,
    load_public_key,
    load_signer,
    public_key_of,
    save_private_key,
)
from scripts.bundle_tool.release import sign_bundle
from tests.unit.bundle.elves import HOST_COMPILER, compiled, library, needs_compiler, program
from tests.unit.bundle.making import PRODUCT, noise
from zentrid.bundle.zbfile import open_bundle

TOP = Path(__file__).resolve().parents[3]


@pytest.fixture
def run(monkeypatch, capsys):
    """Return a function that runs the tool with `--json` and gives its exit status and answer."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["bundle", *map(str, words), "--json"])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out = capsys.readouterr().out
        return caught.value.code or 0, json.loads(out.splitlines()[-1]) if out.strip() else {}

    return run


@pytest.fixture
def good(run):
    """Return a function that runs the tool and gives the answer of a success."""

    def good(*words):
        status, answer = run(*words)
        assert (status, answer.get("result")) == (0, "ok"), answer
        return answer

    return good


@pytest.fixture
def bad(run):
    """Return a function that runs the tool and gives the sentence of a failure."""

    def bad(*words):
        status, answer = run(*words)
        assert (status, answer.get("result")) == (1, "fail"), answer
        return answer["message"]

    return bad


@pytest.fixture
def fleet(tmp_path, good):
    """Return a metadata folder that delegates the product to the key in `keys/<PRODUCT>`."""
    made = good("keygen", "--out", tmp_path / "keys", "--product", PRODUCT)
    for name in ("root", "targets", "online"):
        good("keygen", "--out", tmp_path / "keys" / name)
    signers = {name: load_signer(tmp_path / "keys" / name / "release.key") for name in ("root", "targets", "online")}
    online = [signers["online"].public_key]
    root = tufrepo.new_root(
        root=[signers["root"]], targets=[signers["targets"].public_key], snapshot=online, timestamp=online
    )
    release_key = public_key_of(load_public_key(Path(made["pub"])))
    targets = tufrepo.delegate(tufrepo.new_targets([signers["targets"]]), PRODUCT, [release_key], [signers["targets"]])
    folder = tmp_path / "metadata"
    folder.mkdir()
    (folder / "1.root.json").write_bytes(tufrepo.to_bytes(root))
    (folder / "targets.json").write_bytes(tufrepo.to_bytes(targets))
    return folder


@pytest.fixture
def inputs(tmp_path):
    """Return a folder with payload files."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    (folder / "kernel").write_bytes(noise(50_000, "kernel"))
    (folder / "rootfs").write_bytes(noise(300_000, "rootfs") + bytes(100_000))
    (folder / "motd").write_bytes(b"hello\n")
    (folder / "run.sh").write_bytes(b"#!/bin/sh\n")
    return folder


@pytest.fixture
def build(inputs, tmp_path):
    """Return the words that build a small bundle, and its path."""
    out = tmp_path / "out" / "x.zb"
    return ["build", "--product", PRODUCT, "--version", "1.2.0", "--kernel", inputs / "kernel", "--rootfs",
            inputs / "rootfs", "--out", out], out  # fmt: skip


def sign_words(out, fleet, tmp_path):
    return ["sign", out, "--keys", tmp_path / "keys" / PRODUCT, "--metadata", fleet]


# --- the whole way --------------------------------------------------------------------------------------------------


def test_from_key_to_verified_bundle(build, good, fleet, tmp_path, inputs):
    words, out = build
    answer = good(*words, "--file", f"etc/motd@2.0.0={inputs / 'motd'}", "--app", f"tool={inputs / 'run.sh'}",
                  "--min-version", "1.0.0", "--boot-floor", "1.1.0", "--notes", "first")  # fmt: skip
    items = answer["manifest"]["items"]
    assert [(entry["type"], entry["name"]) for entry in items] == [
        ("kernel", "kernel"), ("rootfs", "rootfs"), ("app", "tool"), ("file", "etc_motd"),
    ]  # fmt: skip
    assert items[2] | {"kind": "script", "entry": "tool"} == items[2]
    assert items[3] | {"kind": "data", "path": "etc/motd", "version": "2.0.0"} == items[3]
    assert not good("inspect", out)["signed"]
    signed = good(*sign_words(out, fleet, tmp_path))
    assert (signed["version"], signed["role_version"], signed["changed"]) == ("1.2.0", 1, True)
    shown = good("inspect", out)
    assert shown["signed"]
    assert list(shown["metadata"]) == ["1.root.json", "targets.json", f"{PRODUCT}.json"]
    verified = good("verify", out, "--root", fleet / "1.root.json")
    assert (verified["product"], verified["version"]) == (PRODUCT, "1.2.0")
    assert stat.S_IMODE(out.stat().st_mode) == 0o644
    assert sorted(path.name for path in out.parent.iterdir()) == ["x.zb"], "nothing is left behind"


def test_building_twice_gives_the_same_file(build, good, tmp_path):
    words, out = build
    good(*words)
    first = out.read_bytes()
    out.unlink()
    good(*words)
    assert out.read_bytes() == first


def test_signing_again_changes_nothing_and_a_second_release_raises_the_version(build, good, fleet, tmp_path):
    words, out = build
    good(*words)
    good(*sign_words(out, fleet, tmp_path))
    first = out.read_bytes()
    assert not good(*sign_words(out, fleet, tmp_path))["changed"]
    assert out.read_bytes() == first
    words[words.index("1.2.0")] = "1.3.0"
    good(*words)
    assert good(*sign_words(out, fleet, tmp_path))["role_version"] == 2
    role = json.loads((fleet / f"{PRODUCT}.json").read_bytes())["signed"]
    assert sorted(role["targets"]) == [f"{PRODUCT}/1.2.0/manifest.json", f"{PRODUCT}/1.3.0/manifest.json"]


def test_the_shell_wrapper_works_from_anywhere(tmp_path):
    done = subprocess.run([TOP / "scripts/bundle", "--help"], cwd=tmp_path, capture_output=True, text=True, check=True)
    for command in ("keygen", "build", "sign", "inspect", "verify", "publish"):
        assert command in done.stdout


def test_a_person_gets_sentences_and_a_table(build, good, monkeypatch, capsys):
    words, out = build
    good(*words, "--notes", "evil \x1b[31m notes [bold]")
    monkeypatch.setattr(sys, "argv", ["bundle", "inspect", str(out)])
    with pytest.raises(SystemExit):
        cli.main()
    shown = capsys.readouterr().out
    assert "rootfs" in shown
    assert "\x1b[31m" not in shown
    assert "[bold]" in shown
    monkeypatch.setattr(sys, "argv", ["bundle", "verify", str(out), "--root", "none"])
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err.startswith("bundle: none: cannot be read")


# --- keys -----------------------------------------------------------------------------------------------------------


def test_keys_are_private_and_never_overwritten(tmp_path, good, bad):
    made = good("keygen", "--out", tmp_path)
    assert stat.S_IMODE(Path(made["key"]).stat().st_mode) == 0o600
    before = Path(made["key"]).read_bytes()
    assert "never overwritten" in bad("keygen", "--out", tmp_path)
    assert Path(made["key"]).read_bytes() == before
    assert load_signer(Path(made["key"])).public_key.keyid == made["keyid"]


def test_a_product_that_is_none_gets_no_key(tmp_path, bad):
    assert "product code" in bad("keygen", "--out", tmp_path, "--product", "../../x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"rubbish", b"x" * 70_000])
def test_what_is_no_key_file_is_refused(tmp_path, content):
    path = tmp_path / "x.key"
    with pytest.raises(KeyFileError, match="cannot be read"):
        load_private_key(path)
    path.write_bytes(content)
    for load in (load_private_key, load_public_key):
        with pytest.raises(KeyFileError):
            load(path)


def test_keys_of_another_kind_are_refused(tmp_path):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    save_private_key(tmp_path / "x.key", key)  # type: ignore[arg-type]
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "x.pub").write_bytes(public)
    with pytest.raises(KeyFileError, match="not an Ed25519"):
        load_private_key(tmp_path / "x.key")
    with pytest.raises(KeyFileError, match="not an Ed25519"):
        load_public_key(tmp_path / "x.pub")


# --- build ----------------------------------------------------------------------------------------------------------


def test_what_cannot_be_built(build, bad, inputs, tmp_path):
    words, out = build
    assert "nothing to put in" in bad("build", "--product", PRODUCT, "--version", "1.0.0", "--out", out)
    assert "no such file" in bad(*words, "--app", f"x={tmp_path}/none")
    assert "write NAME=FILE" in bad(*words, "--app", "x")
    assert "no --app of that name" in bad(*words, "--entry", "x=bin/x")
    assert "1.2 is not" in bad(*words, "--min-version", "1.2").replace("'", "")
    assert "above the release's own version" in bad(*words, "--min-version", "9.0.0")
    assert "is no folder" in bad(*words, "--rootfs-dir", tmp_path / "none")
    assert "two of the same type and name" in bad(
        *words, "--file", f"a={inputs / 'motd'}", "--file", f"a={inputs / 'motd'}"
    )
    assert "without .." in bad(*words, "--file", f"../x={inputs / 'motd'}").replace("items.2.name", "without ..")
    assert not out.exists()
    assert list(out.parent.iterdir()) == [] if out.parent.exists() else True


def test_source_texts():
    source = parse_source("app", "tool@1.2.3=a=b", entries := {"tool": "bin/tool", "other": "x"})
    assert (source.name, str(source.version), str(source.file), source.entry) == ("tool", "1.2.3", "a=b", "bin/tool")
    assert entries == {"other": "x"}
    for text in ("", "=", "x=", "=x", "@1.0.0=x"):
        with pytest.raises(BuildError):
            parse_source("file", text, {})


@needs_compiler
def test_an_app_with_missing_libraries_is_refused_and_named(build, good, bad, tmp_path):
    words, _ = build
    image = tmp_path / "image"
    one, two = library(image / "usr/lib", "libone.so.1"), library(tmp_path, "libtwo.so.2")
    app = program(tmp_path / "app", one, two)
    words += ["--app", f"demo={app}"]
    assert "say what the image has" in bad(*words)
    message = bad(*words, "--rootfs-dir", image)
    assert message.startswith("demo: needs libtwo.so.2, which the image does not have")
    listing = tmp_path / "libs.txt"
    listing.write_text("# the image\n/usr/lib/libtwo.so.2\n\nlibother.so  # comment\n")
    answer = good(*words, "--rootfs-dir", image, "--libs", listing)
    elf = answer["manifest"]["items"][2]["elf"]
    assert elf["needed"] == ["libone.so.1", "libtwo.so.2"]
    assert elf["machine"] == "AARCH64"


@needs_compiler
def test_a_static_app_needs_no_image(build, good, tmp_path):
    words, _ = build
    app = compiled(tmp_path / "app", "-static")
    entry = good(*words, "--app", f"demo={app}")["manifest"]["items"][2]
    assert (entry["kind"], entry["entry"], entry["elf"]["needed"]) == ("elf", "demo", [])


@pytest.mark.skipif(HOST_COMPILER is None or os.uname().machine == "aarch64", reason="no compiler for another machine")
def test_an_app_for_another_machine_is_refused(build, bad, tmp_path):
    words, out = build
    app = compiled(tmp_path / "app", "-static", compiler=HOST_COMPILER)
    assert "demo: is built for X86_64" in bad(*words, "--app", f"demo={app}")
    assert not out.exists()


@needs_compiler
def test_an_app_must_be_for_the_processor_of_the_boards_that_the_bundle_names(build, good, bad, tmp_path):
    words, _ = build
    words += ["--app", f"demo={compiled(tmp_path / 'app', '-static')}"]
    assert good(*words, "--compatible", "virt", "--compatible", "somebody-elses")["manifest"]["compatible"][0] == "virt"
    assert "demo: is built for AARCH64, the board is ARM" in bad(*words, "--compatible", "virt32")
    assert "no program runs on all of them" in bad(*words, "--compatible", "virt", "--compatible", "virt32")


@needs_compiler
def test_an_app_in_a_tar_brings_its_own_libraries(build, good, bad, tmp_path):
    words, _ = build
    own, missing = library(tmp_path, "libown.so.1"), library(tmp_path, "libmissing.so.1")
    for name, libraries in (("good", [own]), ("bad", [own, missing])):
        program(tmp_path / name / "bin/demo", *libraries)
        with tarfile.open(tmp_path / f"{name}.tar", "w") as archive:
            archive.add(tmp_path / name / "bin/demo", "./bin/demo")
            archive.add(own, "lib/libown.so.1")
    app = f"demo={tmp_path / 'good.tar'}"
    assert "name one with --entry" in bad(*words, "--app", app)
    entry = good(*words, "--app", app, "--entry", "demo=bin/demo")["manifest"]["items"][2]
    assert (entry["kind"], entry["entry"], entry["elf"]["needed"]) == ("tar", "bin/demo", ["libown.so.1"])
    listing = tmp_path / "libs.txt"
    listing.write_text("libc.so.6\n")
    words += ["--app", f"demo={tmp_path / 'bad.tar'}", "--entry", "demo=bin/demo", "--libs", listing]
    assert bad(*words).startswith("demo: bin/demo: needs libmissing.so.1")


# --- sign and verify ------------------------------------------------------------------------------------------------


def test_signing_needs_a_delegated_key(build, good, bad, fleet, tmp_path):
    words, out = build
    good(*words)
    before = out.read_bytes()
    good("keygen", "--out", tmp_path / "stranger")
    assert "has other release keys" in bad("sign", out, "--keys", tmp_path / "stranger", "--metadata", fleet)
    assert "1.root.json" in bad("sign", out, "--keys", tmp_path / "stranger", "--metadata", tmp_path)
    words[words.index(PRODUCT)] = "DEMO-VIRT_OTHER"
    assert out.read_bytes() == before
    good(*words)
    assert "is not delegated" in bad(*sign_words(out, fleet, tmp_path))
    assert sorted(path.name for path in fleet.iterdir()) == ["1.root.json", "targets.json"]


def test_a_signed_version_is_not_signed_again_with_other_content(build, good, bad, fleet, tmp_path):
    words, out = build
    good(*words)
    good(*sign_words(out, fleet, tmp_path))
    good(*words, "--notes", "changed")
    before = out.read_bytes()
    assert "give it a new version" in bad(*sign_words(out, fleet, tmp_path))
    assert out.read_bytes() == before
    assert good(*sign_words(out, fleet, tmp_path), "--replace")["role_version"] == 2
    good("verify", out, "--root", fleet / "1.root.json")


def test_an_expired_signature_is_made_new(build, good, bad, fleet, tmp_path):
    words, out = build
    good(*words)
    long_ago = tufrepo.utc_now().replace(year=2020)
    sign_bundle(out, tmp_path / "keys" / PRODUCT, fleet, now=long_ago, days=30)
    assert "expired" in bad("verify", out, "--root", fleet / "1.root.json")
    good("verify", out, "--root", fleet / "1.root.json", "--no-freshness")
    assert good(*sign_words(out, fleet, tmp_path))["role_version"] == 2
    good("verify", out, "--root", fleet / "1.root.json")


def test_verify_refuses(build, good, bad, fleet, tmp_path):
    words, out = build
    good(*words)
    assert "is not signed" in bad("verify", out, "--root", fleet / "1.root.json")
    good(*sign_words(out, fleet, tmp_path))
    assert "root metadata is damaged" in bad("verify", out, "--root", tmp_path / "keys/root/release.pub")
    bundle = open_bundle(out)
    whole = out.read_bytes()
    for member in bundle.members.values():
        place = member.offset + member.size_bytes // 2
        out.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert "patch stream" in bad("verify", out, "--root", fleet / "1.root.json")
    place = whole.index(b'"notes":""')
    out.write_bytes(whole[:place] + b'"notes":" ' + whole[place + 10 :])
    assert "bundle file" in bad("verify", out, "--root", fleet / "1.root.json")
    place = whole.index(b'"size":50000')
    out.write_bytes(whole[:place] + b'"size":50001' + whole[place + 12 :])
    assert "not the one that was signed" in bad("verify", out, "--root", fleet / "1.root.json")


def test_a_missing_file_is_one_sentence(bad, tmp_path):
    assert "none.zb" in bad("inspect", tmp_path / "none.zb")


# --- what the system refuses ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "words",
    [
        ("inspect", "/no/such.zb"),
        ("inspect", "/"),
        (
            "build",
            "--product",
            PRODUCT,
            "--version",
            "1.0.0",
            "--file",
            f"a={__file__}",
            "--libs",
            "/no/such",
            "--out",
            "x",
        ),
    ],
)
def test_a_path_that_cannot_be_used_is_named_and_told_in_words(bad, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sentence = bad(*words)
    assert "Errno" not in sentence
    assert "check the path" in sentence
    assert any(sentence.startswith(f"{word}: ") for word in words)


# --- applications and files, without firmware ------------------------------------------------------------------------


def only(tmp_path, *words):
    """Return the words that build a bundle without firmware, and its path."""
    out = tmp_path / "out" / "items.zb"
    return ["build", "--product", PRODUCT, "--version", "1.2.1", "--out", out, *words], out


def test_a_bundle_may_bring_one_file_and_take_things_away(good, fleet, tmp_path, inputs, monkeypatch, capsys):
    words, out = only(
        tmp_path, "--file", f"etc/motd={inputs / 'motd'}", "--remove", "app:old-tool", "--remove", "file:etc/rules"
    )
    gone = [{"type": "app", "name": "old-tool"}, {"type": "file", "name": "etc_rules"}]
    assert good(*words)["manifest"]["remove"] == gone
    good(*sign_words(out, fleet, tmp_path))
    assert good("inspect", out)["manifest"]["remove"] == gone
    verified = good("verify", out, "--root", fleet / "1.root.json")
    assert verified["remove"] == gone
    assert verified["items"] == [{"type": "file", "name": "etc_motd"}]
    monkeypatch.setattr(sys, "argv", ["bundle", "inspect", str(out)])
    with pytest.raises(SystemExit):
        cli.main()
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("old-tool", "etc_rules", "removed"))


def test_a_bundle_may_only_take_things_away(good, fleet, tmp_path):
    words, out = only(tmp_path, "--remove", "app:old-tool")
    good(*words)
    good(*sign_words(out, fleet, tmp_path))
    assert good("verify", out, "--root", fleet / "1.root.json")["items"] == []


def test_removals_that_make_no_sense_are_refused(bad, tmp_path, inputs):
    for text in ("tool", "kernel:kernel", "app:", "app"):
        assert "write app:NAME or file:PATH" in bad(*only(tmp_path, "--remove", text)[0])
    assert "nothing to put in" in bad(*only(tmp_path)[0])
    both = only(tmp_path, "--file", f"etc/motd={inputs / 'motd'}", "--remove", "file:etc/motd")[0]
    assert "names an item that the release installs" in bad(*both)
    twice = only(tmp_path, "--remove", "app:x", "--remove", "app:x")[0]
    assert "names the same item twice" in bad(*twice)


def test_an_app_needs_a_name_that_a_device_can_use(bad, tmp_path, inputs):
    assert "lower-case" in bad(*only(tmp_path, "--app", f"Tool={inputs / 'run.sh'}")[0])


def test_a_boot_floor_needs_firmware(bad, tmp_path, inputs):
    words = only(tmp_path, "--file", f"etc/motd={inputs / 'motd'}", "--boot-floor", "1.0.0")[0]
    assert "boot_floor" in bad(*words)
