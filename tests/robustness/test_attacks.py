"""The server, the pages, the scripts and the terminal, attacked through addresses, headers and names."""

import shlex
import socket
import threading
from contextlib import suppress
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from cryorecon.cli.main import main
from cryorecon.cli.session import Console
from cryorecon.data.cryodrgn_files import write_poses
from cryorecon.data.files import below, exclusive
from cryorecon.data.inspect import inspect
from cryorecon.data.mrc import write_stack, write_volume
from cryorecon.data.poses import Poses
from cryorecon.errors import InputError
from cryorecon.report.chimerax import write_series_script
from cryorecon.report.page import Section, Table, embedded, write_page
from cryorecon.report.server import ReportServer
from cryorecon.report.thumbnails import Thumbnails
from cryorecon.training.config import RunConfig
from cryorecon.training.run_directory import RunDirectory

EVIL = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "<!--",
    "]]>",
    "&lt;b&gt;",
    "\x00\x1b[2J",
    "\u202e",
    "a\nb",
    "javascript:alert(1)",
    "{{7*7}}",
    "</style><script>",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "analyze.1"
    write_page(folder / "report.html", "t", "s", [Section("a")], "f")
    (folder / "in.txt").write_text("inside")
    (folder / "locked.txt").write_text("inside")
    (folder.parent / "secret.txt").write_text("outside-secret")
    (folder / "loop").symlink_to("loop")
    made = ReportServer(
        folder,
        lambda z: torch.zeros(8, 8, 8) + float(z[0]),
        2,
        lambda i: Thumbnails(np.array([i]), np.zeros((1, 8, 8), np.uint8)),
        5,
    )
    made.errors = []
    made.handle_error = lambda request, address: made.errors.append(address)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()
    assert made.errors == [], "no request ends in a traceback"


def raw(server, text, end=True):
    """What comes back on bytes that nothing has tidied."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as one:
        one.sendall(text if isinstance(text, bytes) else text.encode("latin1"))
        if end:
            with suppress(OSError):  # the server has answered and hung up
                one.shutdown(socket.SHUT_WR)
        parts = []
        while part := one.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def get(server, path, *headers, host=None):
    lines = [f"GET {path} HTTP/1.1", f"Host: {host or f'127.0.0.1:{server.server_port}'}", "Connection: close", *headers]
    answer = raw(server, "\r\n".join(lines) + "\r\n\r\n")
    return int(answer.split(b" ", 2)[1]), answer


@pytest.mark.parametrize(
    "path",
    [
        "../secret.txt",
        "..%2f..%2fsecret.txt",
        "..\\secret.txt",
        "%2e%2e%5csecret.txt",
        "....//secret.txt",
        "%252e%252e%252fsecret.txt",
        "in.txt/../../secret.txt",
        "./../secret.txt",
        "..;/secret.txt",
        "%c0%ae%c0%ae/secret.txt",
        "//etc/passwd",
        "/%2fetc%2fpasswd",
        "file:///etc/passwd",
        "loop",
        "loop/x",
        "in.txt%00.html",
        "~/x",
        "%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "x" * 5000,
        "%",
        "%zz",
        "?z=../../secret.txt",
        "#../secret.txt",
    ],
)
def test_no_address_leads_out_of_the_folder(server, path):
    status, answer = get(server, f"/{server.token}/{path}")
    assert status in (200, 400, 404)
    assert b"outside-secret" not in answer
    assert b"root:" not in answer


@pytest.mark.parametrize("path", ["//[", "http://[::1", "/\xff\xfe", "/" + "a" * 60000, "*", "http://evil.example/"])
def test_addresses_that_are_none_are_answered(server, path):
    assert get(server, path)[0] in (400, 403, 404, 414)


ASKED = [
    ((), 200),
    (("Origin: http://evil.example",), 403),
    (("Origin: null",), 403),
    (("Origin: http://127.0.0.1:1",), 403),
    (("Origin: http://127.0.0.1:{port}",), 200),
    (("Origin: http://localhost:{port}",), 200),
    (("Origin: https://127.0.0.1:{port}",), 403),
    (("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"), 403),
    (("Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: cors"), 403),
    (("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"), 200),
    (("Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors"), 200),
    (("Host: evil.example",), 403),
    (("Origin: http://127.0.0.1:{port}", "Origin: http://evil.example"), 403),
]


@pytest.mark.parametrize(("headers", "status"), ASKED)
def test_another_site_gets_nothing_even_with_the_token(server, headers, status):
    found, answer = get(
        server, f"/{server.token}/volume?z=1,2", *(header.format(port=server.server_port) for header in headers)
    )
    assert found == status
    assert (b'"data"' in answer) == (status == 200)
    assert b"Access-Control-Allow" not in answer


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example:{port}",
        "127.1:{port}",
        "0.0.0.0:{port}",
        "[::1]:{port}",
        "evil.example#127.0.0.1:{port}",
        "",
    ],
)
def test_a_name_that_was_made_to_point_here_is_refused(server, host):
    assert get(server, f"/{server.token}/", host=host.format(port=server.server_port) or " ")[0] == 403


@pytest.mark.parametrize(
    "query",
    [
        "volume?z=" + "9" * 5000 + ",1",
        "volume?z=1" + ",1" * 5000,
        "images?particle=" + "9" * 5000,
        "images?particle=%D9%A1",
        "volume?" + "z=1&" * 3000,
        "volume?z=1_0,2",
        "volume?z=0x1,2",
        "images?particle=1e3",
    ],
)
def test_absurd_numbers_are_refused(server, query):
    assert get(server, f"/{server.token}/{query}")[0] in (200, 400)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "HEAD", "OPTIONS", "EVIL"])
def test_bodies_are_not_read(server, method):
    body = "x" * 100_000
    try:
        answer = raw(
            server,
            f"{method} /{server.token}/ HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\n"
            f"Content-Length: 99999999999\r\n\r\n{body}",
        )
    except ConnectionResetError:  # answered, and hung up with the rest unread
        return
    assert b" 501 " in answer.split(b"\r\n")[0]


def test_a_slow_sender_keeps_nobody_waiting(server):
    with socket.create_connection(("127.0.0.1", server.server_port)) as slow:
        slow.sendall(b"GET /")
        assert get(server, f"/{server.token}/in.txt")[0] == 200


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /\r\n\r\n",
        b"\x16\x03\x01\x00\xff" * 50,
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 300 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
        b"GET / HTTP/1.1\r\nA" + b"x" * 70000 + b"\r\n\r\n",
    ],
)
def test_what_is_no_request_harms_nobody(server, text):
    assert server.token.encode() not in raw(server, text)


class Seen(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.handlers = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.handlers += [
            name
            for name, value in attributes
            if name.startswith("on") or (name in ("href", "src") and (value or "").startswith("javascript:"))
        ]


@pytest.mark.parametrize("bad", EVIL)
def test_no_name_becomes_markup_on_a_page(tmp_path, bad):
    section = Section(bad, bad, tables=[Table((bad,), [(bad, bad)], (0,), bad)], markup=embedded({bad: [bad]}, "data"))
    page = write_page(tmp_path / "x.html", bad, bad, [section], bad).read_text(encoding="utf-8")
    seen = Seen()
    seen.feed(page)
    assert seen.tags.count("script") == 1, "the embedded data alone"
    assert seen.handlers == []
    assert "img" not in seen.tags
    assert page.count("</script>") == page.count("</style>") == 1


@pytest.mark.parametrize(
    "bad", ["a\nrunscript x.py", 'a" ; close session', "a'; quit", "a\\", "$HOME*", "a\x1b[2J", "a\u2028quit", "a?b", "{a}"]
)
def test_no_name_becomes_a_command_of_chimerax(tmp_path, bad):
    path = tmp_path / f"{bad}.mrc"
    write_volume(path, np.random.default_rng(0).random((8, 8, 8)), 1.0)
    try:
        script = write_series_script(tmp_path, [path], morph=False).read_text()
    except InputError:
        assert not (tmp_path / "chimerax.cxc").exists()
    else:
        assert shlex.split(script.splitlines()[1]) == ["open", path.name]


@pytest.mark.parametrize("bad", ["\x1b]0;owned\x07", "a\rb", "\u202egnp", "a\x9b31m"])
def test_no_word_of_a_file_is_obeyed_by_the_terminal(tmp_path, capsys, bad):
    star = tmp_path / "a.star"
    star.write_text(f"data_particles\n\nloop_\n_rlnImageName #1\n_rlnDefocusU #2\nx@{bad} 1\n", encoding="utf-8", newline="")
    assert main(["parse_ctf_star", str(star), "-o", str(tmp_path / "o.pkl"), "-D", "8"]) == 2
    said = capsys.readouterr().err
    assert said.strip().isprintable()
    assert said.count("\n") == 1
    write_stack(tmp_path / f"{bad}.mrcs", np.random.default_rng(0).random((3, 8, 8), dtype=np.float32), 1.0)
    assert all(line.isprintable() for line in str(inspect(tmp_path / f"{bad}.mrcs")).splitlines())


def test_no_link_in_a_strangers_run_leads_a_writer_out_of_it(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("as it was")
    run = tmp_path / "run"
    run.mkdir()
    for name in ("metrics.jsonl", "run.log", ".weights.1.pt.cryorecon-tmp", ".config.yaml.cryorecon-tmp", "a.mrcs.part",
                 ".poses.1.pkl.cryorecon-tmp", ".cryorecon-lock"):
        (run / name).symlink_to(precious)
    directory = RunDirectory(run)
    with pytest.raises(InputError, match="found a link"):
        directory.log({"epoch": 1})
    with pytest.raises(InputError, match="found a link"):
        Console(run / "run.log", 1).note("a line")
    write_stack(run / "a.mrcs", np.zeros((1, 8, 8), np.float32), 1.0)
    with exclusive(run):
        pass
    directory.write_config(RunConfig("p", zdim=1), ["cryorecon"])
    directory.save(1, {"epoch": 1}, None)
    directory.drop_after(0)
    write_poses(run / "poses.1.pkl", Poses(torch.eye(3)[None], torch.zeros(1, 2)), 8, 1.0)
    assert precious.read_text() == "as it was"
    assert not (run / "metrics.jsonl").is_symlink(), "its place was taken by a file"


@pytest.mark.parametrize("name", ["validate", "half_1", "gold_standard", "conformation.3"])
def test_what_is_made_below_a_strangers_folder_is_in_no_link(tmp_path, name):
    assert below(tmp_path, name) == tmp_path / name
    (tmp_path / name).symlink_to("nowhere", target_is_directory=True)
    with pytest.raises(InputError, match="found a link to nowhere"):
        below(tmp_path, name)
