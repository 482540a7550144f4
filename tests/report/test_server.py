"""``serve`` answers who knows the token, from this machine, and gives out what lies below the report's folder."""

import base64
import gzip
import http.client
import json
import threading

import numpy as np
import pytest
import torch

from cryorecon.errors import InputError
from cryorecon.report.page import Section, write_page
from cryorecon.report.server import ReportServer
from cryorecon.report.thumbnails import Thumbnails


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "analyze.1"
    write_page(folder / "report.html", "t", "s", [Section("a")], "f")
    (folder / "z 1.npy").write_bytes(b"inside")
    (folder.parent / "secret.txt").write_text("outside")
    (folder.parent / "analyze.1-not").mkdir()
    (folder.parent / "analyze.1-not" / "secret.txt").write_text("beside")
    (folder / "link.txt").symlink_to(folder.parent / "secret.txt")
    (folder / "out").symlink_to(folder.parent)
    calls = []

    def decode(z):
        calls.append(z.tolist())
        return torch.arange(80.0**3).reshape(80, 80, 80) * 0 + float(z[0]) + torch.linspace(0, 1, 80)

    made = ReportServer(folder, decode, 2, lambda i: Thumbnails(np.array([i]), np.full((1, 8, 8), i, np.uint8)), 5)
    made.calls = calls
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def ask(server, path, host=None, method="GET"):
    """Status, headers and body of a raw request: nothing tidies the path."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    try:
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", host or f"127.0.0.1:{server.server_port}")
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def test_the_page_may_ask_its_own_server_and_nobody_else(server):
    status, headers, body = ask(server, f"/{server.token}/")
    assert status == 200
    assert b"connect-src 'self'" in body
    assert b"connect-src 'none'" not in body
    assert (headers["X-Frame-Options"], headers["Cache-Control"]) == ("DENY", "no-store")
    assert server.server_address[0] == "127.0.0.1"
    assert len(server.token) >= 32


@pytest.mark.parametrize("path", [
    "/", "/wrong/", "/wrong/volume?z=1,2", "/volume?z=1,2", "/report.html", "/{token}", "/{token}x/", "/%C3%A9/"])
def test_without_the_token_there_is_nothing(server, path):
    status, _, body = ask(server, path.format(token=server.token))
    assert status == 404
    assert b"connect-src" not in body


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example"])
def test_another_name_for_this_machine_is_refused(server, host):
    assert ask(server, f"/{server.token}/", host)[0] == 403


@pytest.mark.parametrize("name", [
    "../secret.txt", "..%2fsecret.txt", "%2e%2e/secret.txt", "link.txt", "out/secret.txt", "/etc/passwd", "%2fetc%2fpasswd",
    "../analyze.1-not/secret.txt", "..", ".", "out", "z%001.npy", "absent", "a/" * 3000])
def test_nothing_outside_the_folder_is_read(server, name):
    status, _, body = ask(server, f"/{server.token}/{name}")
    assert status == 404
    assert b"side" not in body


def test_files_below_it_are_downloads(server):
    status, headers, body = ask(server, f"/{server.token}/z%201.npy")
    assert (status, body) == (200, b"inside")
    assert headers["Content-Disposition"] == "attachment"
    assert headers["Content-Type"] == "application/octet-stream"
    assert "sandbox" in headers["Content-Security-Policy"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_it_only_answers_get(server, method):
    assert ask(server, f"/{server.token}/", method=method)[0] == 501


def test_a_map_is_decoded_once_for_a_latent(server):
    server.calls.clear()
    for _ in range(2):
        status, _, body = ask(server, f"/{server.token}/volume?z=2,-1e0")
    assert status == 200
    held = json.loads(body)
    values = np.frombuffer(gzip.decompress(base64.b64decode(held["data"])), np.uint8).reshape([held["box"]] * 3)
    assert held["box"] == 64
    assert held["low"] == pytest.approx(2.5, abs=0.1)
    assert values.max() == 255
    assert server.calls == [[2, -1]]


@pytest.mark.parametrize(("query", "says"), [
    ("z=1", "expected z of 2"), ("z=1,2,3", "found 3"), ("z=1,nan", "finite"), ("z=1,1e999", "finite"), ("z=a,b", "numbers"),
    ("z=", "numbers"), ("", "alone"), ("z=1,2&z=3,4", "alone"), ("z=1,2&x=1", "alone")])  # fmt: skip
def test_other_latents_are_refused_in_one_line(server, query, says):
    status, _, body = ask(server, f"/{server.token}/volume?{query}")
    assert status == 400
    assert says in body.decode()
    assert body.count(b"\n") == 1


def test_images_of_a_particle(server):
    held = json.loads(ask(server, f"/{server.token}/images?particle=3")[2])
    assert (held["side"], held["count"]) == (8, 1)
    assert set(gzip.decompress(base64.b64decode(held["tiles"]))) == {3}
    for wrong in ("5", "-1", "%C2%B2", "1.0", ""):
        assert ask(server, f"/{server.token}/images?particle={wrong}")[0] == 400


def test_images_that_can_not_be_read_any_more_are_told(server, monkeypatch):
    def shrunk(particle):
        raise InputError("particles.mrcs: expected 9 bytes, found 3")

    monkeypatch.setattr(server, "images", shrunk)
    status, _, body = ask(server, f"/{server.token}/images?particle=3")
    assert (status, body) == (404, b"particles.mrcs: expected 9 bytes, found 3\n")


def test_no_report_or_no_port_is_told(server, tmp_path):
    with pytest.raises(InputError, match="run `cryorecon analyze`"):
        ReportServer(tmp_path, server.decode, 2)
    with pytest.raises(InputError, match="expected a free port"):
        ReportServer(server.folder, server.decode, 2, port=server.server_port)
